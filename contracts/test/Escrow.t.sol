// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Base} from "./Base.sol";
import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";

contract EscrowTest is Base {
    function setUp() public {
        _prepare(100e6, 80e6, 50e6, 1000);
    }

    // --- Crediting ---

    function test_a_row_credits_what_the_lane_lacks_and_repeating_it_credits_nothing() public {
        _eq(_post(_row(provider, 10e6)), 10e6, "first");
        _eq(_post(_row(provider, 10e6)), 0, "the same again");
        _eq(_post(_row(provider, 4e6)), 0, "an older one");
        _later(WINDOW);
        _eq(_post(_row(provider, 11e6)), 1e6, "the next");
        _eq(escrow.viewAccount(account).balance, 89e6, "balance");
    }

    function test_post_and_claim_of_one_row_credit_it_once_in_either_order() public {
        _post(_row(provider, 3e6));
        _eq(escrow.claim(account, provider, 3e6, _signed(provider, 3e6)), 0, "claimed after it was posted");
        _eq(escrow.claim(account, platform, 2e6, _signed(platform, 2e6)), 2e6, "claimed first");
        _eq(_post(_row(platform, 2e6)), 0, "posted after it was claimed");
    }

    function test_a_lane_whose_window_is_open_is_skipped_and_the_event_says_which() public {
        _post(_row(provider, 1e6));
        VM.recordLogs();
        uint256 credited = _post(abi.encodePacked(_row(platform, 1e6), _row(provider, 2e6)));
        _eq(credited, 1e6, "only the other lane");
        (uint256 told, bytes memory skipped,,) =
            abi.decode(VM.getRecordedLogs()[0].data, (uint256, bytes, bytes32, bytes32));
        require(told == 1e6 && keccak256(skipped) == keccak256(hex"02"), "the second row waits");
        _eq(escrow.viewLane(account, provider).posted, 1e6, "left as it was");
        bytes memory signature = _signed(provider, 2e6);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.WindowOpen.selector, account, provider, _now() + WINDOW));
        escrow.claim(account, provider, 2e6, signature);
    }

    function testFuzz_any_order_of_rows_ends_at_the_greatest_total(uint40[5] memory totals) public {
        uint72 greatest;
        for (uint256 n; n < totals.length; ++n) {
            uint72 total = totals[n] % 40e6;
            if (total > greatest) greatest = total;
            _later(WINDOW);
            _post(_row(provider, total));
        }
        _eq(escrow.viewLane(account, provider).posted, greatest, "greatest");
        _eq(escrow.viewAccount(account).balance, 100e6 - greatest, "paid once");
    }

    function test_as_many_rows_as_fit_a_transaction_are_credited_and_each_that_waits_is_told() public {
        uint32 last = platform;
        while (last < 600) last = escrow.register(PLATFORM);
        _post(_row(300, 5));
        bytes memory rows;
        for (uint32 n = 1; n <= 600; ++n) {
            rows = bytes.concat(rows, _row(n, 7));
        }
        VM.recordLogs();
        _eq(_post(rows), 599 * 7, "all but one");
        (, bytes memory skipped,,) = abi.decode(VM.getRecordedLogs()[0].data, (uint256, bytes, bytes32, bytes32));
        bytes memory wanted = new bytes(75);
        // Row number 299 is bit 3 of byte 37.
        wanted[37] = 0x08;
        require(keccak256(skipped) == keccak256(wanted), "which one");
    }

    // --- Limits ---

    function test_no_more_leaves_at_once_than_the_burst_and_it_refills_with_time() public {
        bytes memory rows = _row(provider, 50e6 + 1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.RateExceeded.selector, account, 50e6 + 1, 50e6));
        _post(rows);
        _post(_row(provider, 50e6));
        _later(WINDOW);
        _eq(escrow.viewAccount(account).spendable, uint256(WINDOW) * 1000, "refilled");
        _eq(_post(_row(provider, 50e6 + 3_600_000)), 3_600_000, "what the time allows");
    }

    function test_no_more_leaves_in_all_than_the_allowance() public {
        _post(_row(provider, 50e6));
        _later(30 days);
        bytes memory rows = _row(provider, 80e6 + 1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.AllowanceExceeded.selector, account, 30e6 + 1, 30e6));
        _post(rows);
        VM.prank(PAYER);
        escrow.raise(account, 40e6, 50e6, 1000);
        _eq(_post(rows), 30e6 + 1, "after the raise");
    }

    function test_limits_are_only_raised() public {
        VM.expectRevert(abi.encodeWithSelector(IEscrow.OnlyRaises.selector, 80e6, 79e6));
        VM.prank(PAYER);
        escrow.raise(account, 79e6, 50e6, 1000);
    }

    function test_only_the_accounts_settler_posts_or_signs() public {
        bytes memory rows = _row(provider, 1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotSettler.selector, settler, STRANGER));
        VM.prank(STRANGER);
        escrow.post(account, rows, 0, 0);
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(0xBAD, escrow.rowDigest(account, provider, 1));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotSigned.selector, settler, VM.addr(0xBAD)));
        escrow.claim(account, provider, 1, abi.encodePacked(r, s, v));
    }

    function test_a_signature_for_another_chain_is_worth_nothing() public {
        bytes memory signature = _signed(provider, 1e6);
        VM.chainId(999);
        (bool ok,) = address(escrow).call(abi.encodeCall(IEscrow.claim, (account, provider, 1e6, signature)));
        require(!ok, "claimed on a fork");
    }

    function test_a_mirrored_signature_is_refused() public {
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(HOT_KEY, escrow.rowDigest(account, provider, 1e6));
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        bytes memory mirrored = abi.encodePacked(r, bytes32(order - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        (bool ok,) = address(escrow).call(abi.encodeCall(IEscrow.claim, (account, provider, 1e6, mirrored)));
        require(!ok, "claimed with the mirrored signature");
    }

    // --- Bad input ---

    function test_rows_that_name_nobody_or_are_cut_are_refused() public {
        bytes memory rows = _row(77, 1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.UnknownPayee.selector, uint32(77)));
        _post(rows);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.MalformedRows.selector, 12));
        _post(new bytes(12));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.MalformedRows.selector, 0));
        _post("");
    }

    function test_an_account_may_be_opened_bound_and_guarded_at_once() public {
        VM.prank(PAYER);
        bytes32 other = escrow.open("two", "mine", GUARDIAN, IEscrow.Limits(1, 2, 3, settler));
        IEscrow.AccountView memory seen = escrow.viewAccount(other);
        require(seen.tenant == "mine" && seen.guardian == GUARDIAN && seen.payer == PAYER, "all of it");
        require(seen.limits.allowance == 1 && seen.limits.burst == 2 && seen.limits.rate == 3, "within limits");
        VM.expectRevert(abi.encodeWithSelector(IEscrow.UnknownSettler.selector, 77));
        escrow.open("three", 0, address(0), IEscrow.Limits(1, 1, 1, 77));
    }

    function test_an_account_is_opened_once_and_bound_once_by_its_payer() public {
        VM.expectRevert(abi.encodeWithSelector(IEscrow.AlreadyOpen.selector, account));
        VM.prank(PAYER);
        escrow.open("one", 0, address(0), IEscrow.Limits(1, 1, 1, settler));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotPayer.selector, account, STRANGER));
        VM.prank(STRANGER);
        escrow.bind(account, "theirs");
        VM.prank(PAYER);
        escrow.bind(account, "mine");
        VM.expectRevert(abi.encodeWithSelector(IEscrow.AlreadyBound.selector, account, bytes32("mine")));
        VM.prank(PAYER);
        escrow.bind(account, "another");
    }

    function test_thawing_money_can_still_be_credited_and_the_rest_leaves_after_the_thaw() public {
        VM.prank(PAYER);
        escrow.thaw(account, 100e6);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.StillThawing.selector, account, _now() + THAW));
        VM.prank(PAYER);
        escrow.withdraw(account);
        _later(THAW);
        _post(_row(provider, 30e6));
        VM.prank(PAYER);
        escrow.withdraw(account);
        _eq(token.balanceOf(PAYER), 70e6, "the rest");
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingThaws.selector, account));
        VM.prank(PAYER);
        escrow.withdraw(account);
    }

    function test_what_is_owed_is_collected_after_the_window_by_anybody_to_the_payee() public {
        _post(_row(provider, 7e6));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingToCollect.selector, provider));
        escrow.collect(provider, _one());
        _later(WINDOW);
        VM.prank(STRANGER);
        _eq(escrow.collect(provider, _one()), 7e6, "collected");
        _eq(token.balanceOf(PROVIDER), 7e6, "by the payee");
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingToCollect.selector, provider));
        escrow.collect(provider, _one());
    }

    function test_another_pay_to_address_applies_after_seven_days_and_can_be_taken_back() public {
        VM.prank(PROVIDER);
        escrow.setPayTo(provider, STRANGER);
        (, address payTo,,) = escrow.viewPayee(provider);
        require(payTo == PROVIDER, "not yet");
        VM.prank(PROVIDER);
        escrow.setPayTo(provider, PROVIDER);
        _later(8 days);
        (, payTo,,) = escrow.viewPayee(provider);
        require(payTo == PROVIDER, "taken back");
    }
}
