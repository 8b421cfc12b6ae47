// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Base} from "./Base.sol";
import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";

/// What the payer, its guardian, the arbiter and a settler's cold key do when something is wrong.
contract CasesTest is Base {
    function setUp() public {
        _prepare(100e6, 80e6, 50e6, 1000);
        VM.prank(PAYER);
        escrow.appoint(account, GUARDIAN);
    }

    function _dispute() internal {
        VM.prank(GUARDIAN);
        escrow.dispute(account, provider);
    }

    // --- Cases ---

    function test_an_unanswered_case_lapses_to_the_payee_by_time_alone() public {
        _post(_row(provider, 10e6));
        _dispute();
        _later(CASE - 1);
        _eq(escrow.viewLane(account, provider).mature, 0, "still held");
        _eq(_post(_row(provider, 11e6)), 0, "a held lane is skipped");
        _later(1);
        _eq(escrow.collect(provider, _one()), 10e6, "lapsed");
        _eq(escrow.viewAccount(account).balance, 89e6, "the fee is gone");
        _eq(escrow.collectCaseFees(), CASE_FEE, "the fee");
        _eq(token.balanceOf(ARBITER), CASE_FEE, "the arbiter has it");
    }

    function test_a_cut_returns_to_the_account_and_the_same_row_credits_nothing_again() public {
        _post(_row(provider, 10e6));
        _dispute();
        VM.prank(ARBITER);
        escrow.resolve(account, provider, 4e6);
        _eq(escrow.viewAccount(account).balance, 93e6, "the cut is back");
        _eq(escrow.viewLane(account, provider).returned, 4e6, "it is the lane's");
        _eq(escrow.viewLane(account, provider).caseFees, CASE_FEE, "so is the fee");
        _eq(escrow.collect(provider, _one()), 6e6, "the rest");
        _eq(_post(_row(provider, 10e6)), 0, "posted again");
        _eq(_post(_row(provider, 11e6)), 1e6, "only what is new");
        _eq(escrow.viewAccount(account).credited, 11e6, "a cut takes no credit back");
    }

    function test_the_arbiter_cuts_only_open_cases_and_only_what_they_hold() public {
        _post(_row(provider, 10e6));
        _later(WINDOW);
        _post(_row(provider, 13e6));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotDisputed.selector, account, provider));
        VM.prank(ARBITER);
        escrow.resolve(account, provider, 1);
        _dispute();
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotArbiter.selector, STRANGER));
        VM.prank(STRANGER);
        escrow.resolve(account, provider, 1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.CutTooLarge.selector, 3e6 + 1, 3e6));
        VM.prank(ARBITER);
        escrow.resolve(account, provider, 3e6 + 1);
        _eq(escrow.collect(provider, _one()), 10e6, "what had matured is not held");
        _later(CASE);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotDisputed.selector, account, provider));
        VM.prank(ARBITER);
        escrow.resolve(account, provider, 3e6);
    }

    function test_a_credit_is_disputed_once_within_its_window_by_payer_or_guardian() public {
        _post(_row(provider, 10e6));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotGuardian.selector, account, STRANGER));
        VM.prank(STRANGER);
        escrow.dispute(account, provider);
        _dispute();
        VM.expectRevert(abi.encodeWithSelector(IEscrow.AlreadyDisputed.selector, account, provider, _now() + CASE));
        VM.prank(PAYER);
        escrow.dispute(account, provider);
        _later(CASE);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingToDispute.selector, account, provider));
        VM.prank(PAYER);
        escrow.dispute(account, provider);
    }

    function test_a_refund_returns_to_the_account_and_is_never_paid_again() public {
        _post(_row(provider, 10e6));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotOwner.selector, provider, STRANGER));
        VM.prank(STRANGER);
        escrow.refund(account, provider, 4e6);
        VM.prank(PROVIDER);
        escrow.refund(account, provider, 4e6);
        _eq(escrow.viewAccount(account).balance, 94e6, "back");
        _eq(escrow.viewLane(account, provider).returned, 4e6, "it is the lane's");
        _later(WINDOW);
        _eq(escrow.collect(provider, _one()), 6e6, "the rest");
        VM.expectRevert(abi.encodeWithSelector(IEscrow.BalanceTooLow.selector, account, 1, 0));
        VM.prank(PROVIDER);
        escrow.refund(account, provider, 1);
    }

    // --- Freezing, lowering, leaving ---

    function test_a_freeze_stops_credits_and_cancels_the_way_out_and_comes_back_only_after_a_thaw() public {
        VM.prank(PAYER);
        escrow.thaw(account, 100e6);
        VM.prank(GUARDIAN);
        escrow.freeze(account);
        uint256 until = _now() + 3 days;
        VM.expectRevert(abi.encodeWithSelector(IEscrow.AccountFrozen.selector, account, until));
        _post(_row(provider, 1e6));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingThaws.selector, account));
        VM.prank(PAYER);
        escrow.withdraw(account);
        VM.prank(PAYER);
        escrow.thaw(account, 100e6);
        _eq(escrow.viewAccount(account).thawEnd, until + THAW, "a whole thaw after the freeze");
        _later(3 days + THAW);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.TooEarly.selector, until + THAW + 1 days));
        VM.prank(GUARDIAN);
        escrow.freeze(account);
        VM.prank(PAYER);
        escrow.withdraw(account);
        _eq(token.balanceOf(PAYER), 100e6, "a guardian can't keep the payer in");
        _later(1 days);
        VM.prank(GUARDIAN);
        escrow.freeze(account);
    }

    function test_lower_limits_and_another_settler_wait_for_a_thaw_and_never_raise() public {
        uint32 second = escrow.enroll(STRANGER);
        VM.prank(PAYER);
        escrow.schedule(account, IEscrow.Limits(70e6, 60e6, 500, second));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.TooEarly.selector, _now() + THAW));
        escrow.applyChange(account);
        _post(_row(provider, 20e6));
        _later(THAW);
        escrow.applyChange(account);
        IEscrow.Limits memory limits = escrow.viewAccount(account).limits;
        _eq(limits.allowance, 60e6, "what is left is lower");
        _eq(limits.burst, 50e6, "a burst is not raised so");
        _eq(limits.rate, 500, "rate");
        _eq(limits.settler, second, "settler");
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotSettler.selector, second, hot));
        _post(_row(provider, 21e6));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingScheduled.selector, account));
        escrow.applyChange(account);
    }

    function test_a_release_shortens_exactly_the_thaw_that_was_signed() public {
        VM.prank(PAYER);
        escrow.thaw(account, 60e6);
        uint40 end = escrow.viewAccount(account).thawEnd;
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(HOT_KEY, escrow.releaseDigest(account, 60e6, end));
        bytes memory signature = abi.encodePacked(r, s, v);
        escrow.release(account, signature);
        _later(1 hours);
        VM.prank(PAYER);
        escrow.withdraw(account);
        _eq(token.balanceOf(PAYER), 60e6, "left");
        VM.prank(PAYER);
        escrow.thaw(account, 40e6);
        (bool ok,) = address(escrow).call(abi.encodeCall(IEscrow.release, (account, signature)));
        require(!ok, "a signature for another thaw");
    }

    function test_a_payer_that_exits_while_owing_is_overtaken_by_the_voucher() public {
        bytes memory voucher = _signed(provider, 30e6);
        VM.prank(PAYER);
        escrow.thaw(account, 100e6);
        _later(THAW - 1);
        VM.prank(STRANGER);
        escrow.claim(account, provider, 30e6, voucher);
        _later(1);
        VM.prank(PAYER);
        escrow.withdraw(account);
        _eq(token.balanceOf(PAYER), 70e6, "the payer has the rest");
        _later(WINDOW);
        _eq(escrow.collect(provider, _one()), 30e6, "the provider has its own");
    }

    function test_another_guardian_takes_over_after_a_thaw() public {
        VM.prank(PAYER);
        escrow.appoint(account, STRANGER);
        require(escrow.viewAccount(account).guardian == GUARDIAN, "not yet");
        _later(THAW);
        require(escrow.viewAccount(account).guardian == STRANGER, "now");
        require(escrow.viewChange(account).nextGuardian == STRANGER, "shown");
    }

    // --- Keys ---

    function test_a_stolen_hot_key_takes_no_more_than_the_burst_and_nothing_after_a_freeze() public {
        VM.prank(STRANGER);
        uint32 thief = escrow.register(STRANGER);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.RateExceeded.selector, account, 50e6 + 1, 50e6));
        _post(_row(thief, 50e6 + 1));
        _post(_row(thief, 50e6));
        VM.prank(GUARDIAN);
        escrow.freeze(account);
        VM.prank(GUARDIAN);
        escrow.dispute(account, thief);
        VM.prank(ARBITER);
        escrow.resolve(account, thief, 50e6);
        _eq(escrow.viewAccount(account).balance, 99e6, "all but the fee is back");
    }

    function test_a_rotated_keys_signatures_stay_good_for_a_time_unless_it_was_stolen() public {
        bytes memory voucher = _signed(provider, 1e6);
        bytes memory later = _signed(platform, 1e6);
        escrow.rotate(settler, STRANGER, false);
        _eq(escrow.claim(account, provider, 1e6, voucher), 1e6, "still good");
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotSettler.selector, settler, hot));
        _post(_row(provider, 2e6));
        _later(7 days);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotSigned.selector, settler, hot));
        escrow.claim(account, platform, 1e6, later);
        escrow.rotate(settler, hot, false);
        escrow.rotate(settler, PROVIDER, true);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotSigned.selector, settler, hot));
        escrow.claim(account, platform, 1e6, later);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotCold.selector, settler, STRANGER));
        VM.prank(STRANGER);
        escrow.rotate(settler, STRANGER, true);
    }

    function test_a_halt_stops_credits_for_its_time_and_comes_back_only_after_a_thaw() public {
        escrow.halt(settler);
        uint256 until = _now() + 12 hours;
        VM.expectRevert(abi.encodeWithSelector(IEscrow.SettlerHalted.selector, settler, until));
        _post(_row(provider, 1));
        _later(12 hours);
        _post(_row(provider, 1));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.TooEarly.selector, until + THAW));
        escrow.halt(settler);
    }

    // --- Claims, dust, permits ---

    function test_many_claims_credit_as_many_rows_and_tell_which_wait() public {
        bytes memory rows = abi.encodePacked(_row(provider, 2e6), _row(platform, 3e6));
        bytes memory signatures = abi.encodePacked(_signed(provider, 2e6), _signed(platform, 3e6));
        _eq(escrow.claimMany(account, rows, signatures), 5e6, "both");
        _eq(escrow.claimMany(account, rows, signatures), 0, "again");
        rows = abi.encodePacked(_row(provider, 2e6), _row(platform, 4e6));
        signatures = abi.encodePacked(_signed(provider, 2e6), _signed(platform, 4e6));
        VM.recordLogs();
        _eq(escrow.claimMany(account, rows, signatures), 0, "its window is open");
        (, bytes memory skipped) = abi.decode(VM.getRecordedLogs()[0].data, (uint256, bytes));
        require(keccak256(skipped) == keccak256(hex"02"), "the second row waits");
        VM.expectRevert(abi.encodeWithSelector(IEscrow.MalformedSignatures.selector, 64, 130));
        escrow.claimMany(account, rows, new bytes(64));
    }

    function testFuzz_dust_is_neither_lost_nor_made(uint16[4] memory dust) public {
        uint72 total;
        uint256 collected;
        for (uint256 n; n < dust.length; ++n) {
            total += uint72(dust[n]) + 1;
            _post(_row(provider, total));
            _later(WINDOW);
            collected += escrow.collect(provider, _one());
        }
        _eq(collected, total, "to the unit");
    }

    /// A holder with a key, its money, and a permit for the contract to take it.
    function _permit(uint256 amount) private returns (address holder, uint8 v, bytes32 r, bytes32 s) {
        uint256 key = 0xB0B;
        holder = VM.addr(key);
        token.mint(holder, amount);
        bytes32 record = keccak256(
            abi.encode(
                keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"),
                holder,
                address(escrow),
                amount,
                token.nonces(holder),
                _now()
            )
        );
        (v, r, s) = VM.sign(key, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), record)));
    }

    function test_a_permit_pays_without_an_approval_before() public {
        (address holder, uint8 v, bytes32 r, bytes32 s) = _permit(10e6);
        VM.prank(holder);
        escrow.depositWithPermit(account, 10e6, _now(), v, r, s);
        _eq(escrow.viewAccount(account).balance, 110e6, "paid");
    }

    function test_a_permit_that_somebody_sent_ahead_still_pays() public {
        (address holder, uint8 v, bytes32 r, bytes32 s) = _permit(10e6);
        token.permit(holder, address(escrow), 10e6, _now(), v, r, s);
        VM.prank(holder);
        escrow.depositWithPermit(account, 10e6, _now(), v, r, s);
        _eq(escrow.viewAccount(account).balance, 110e6, "paid");
    }

    function test_a_permit_that_somebody_else_shows_moves_nobody_elses_money() public {
        (address holder, uint8 v, bytes32 r, bytes32 s) = _permit(10e6);
        token.permit(holder, address(escrow), 10e6, _now(), v, r, s);
        token.mint(STRANGER, 10e6);
        VM.prank(STRANGER);
        (bool ok,) = address(escrow).call(abi.encodeCall(IEscrow.depositWithPermit, (account, 10e6, _now(), v, r, s)));
        require(!ok && token.balanceOf(holder) == 10e6 && token.balanceOf(STRANGER) == 10e6, "nobody paid");
    }

    function test_terms_that_leave_no_time_are_refused() public {
        Escrow.Terms memory terms = _terms();
        terms.thaw = 49 hours + 12 hours + WINDOW;
        VM.expectRevert(abi.encodeWithSelector(IEscrow.ThawTooShort.selector, terms.thaw, terms.thaw));
        new Escrow(token, terms);
        terms = _terms();
        terms.case_ = WINDOW - 1;
        VM.expectRevert(abi.encodeWithSelector(IEscrow.CaseTooShort.selector, WINDOW - 1, WINDOW));
        new Escrow(token, terms);
    }
}
