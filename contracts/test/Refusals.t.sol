// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Base} from "./Base.sol";
import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {TestToken} from "../src/test/TestToken.sol";

/// Input that makes no sense is refused by name, with the values that explain it, and changes nothing.
contract RefusalsTest is Base {
    bytes32 private constant NOBODYS = "nobody's";

    function setUp() public {
        _prepare(100e6, 80e6, 50e6, 1000);
    }

    function _unknown(bytes32 account_) private {
        VM.expectRevert(abi.encodeWithSelector(IEscrow.UnknownAccount.selector, account_));
    }

    function _refuse(bytes4 why) private {
        VM.expectRevert(abi.encodeWithSelector(why));
    }

    function test_an_account_that_nobody_opened_is_named() public {
        _unknown(NOBODYS);
        escrow.deposit(NOBODYS, 1);
        _unknown(NOBODYS);
        escrow.bind(NOBODYS, "mine");
        _unknown(NOBODYS);
        escrow.freeze(NOBODYS);
        _unknown(NOBODYS);
        escrow.dispute(NOBODYS, provider);
        bytes memory row = _row(provider, 1);
        _unknown(NOBODYS);
        escrow.post(NOBODYS, row, 0, 0);
        _unknown(NOBODYS);
        escrow.release(NOBODYS, "");
    }

    function test_a_zero_address_is_nobody_to_pay_or_to_sign() public {
        _refuse(IEscrow.ZeroAddress.selector);
        escrow.register(address(0));
        _refuse(IEscrow.ZeroAddress.selector);
        escrow.enroll(address(0));
        _refuse(IEscrow.ZeroAddress.selector);
        escrow.rotate(settler, address(0), false);
        _refuse(IEscrow.ZeroAddress.selector);
        VM.prank(PROVIDER);
        escrow.setPayTo(provider, address(0));
        Escrow.Terms memory terms = _terms();
        terms.arbiter = address(0);
        _refuse(IEscrow.ZeroAddress.selector);
        new Escrow(token, terms);
        _refuse(IEscrow.ZeroAddress.selector);
        new Escrow(TestToken(address(0)), _terms());
    }

    function test_nothing_is_no_amount() public {
        _refuse(IEscrow.ZeroAmount.selector);
        escrow.deposit(account, 0);
        _refuse(IEscrow.ZeroAmount.selector);
        VM.prank(PAYER);
        escrow.thaw(account, 0);
        _refuse(IEscrow.ZeroAmount.selector);
        VM.prank(PROVIDER);
        escrow.refund(account, provider, 0);
        _refuse(IEscrow.ZeroAmount.selector);
        escrow.collectCaseFees();
    }

    function test_more_than_an_account_can_hold_is_refused() public {
        uint256 most = type(uint72).max - 100e6;
        VM.expectRevert(abi.encodeWithSelector(IEscrow.AmountTooLarge.selector, most + 1));
        escrow.deposit(account, most + 1);
        _deposit(most);
        _eq(escrow.viewAccount(account).balance, type(uint72).max, "to the last unit");
    }

    function test_each_limit_is_only_raised() public {
        VM.expectRevert(abi.encodeWithSelector(IEscrow.OnlyRaises.selector, 50e6, 50e6 - 1));
        VM.prank(PAYER);
        escrow.raise(account, 80e6, 50e6 - 1, 1000);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.OnlyRaises.selector, 1000, 999));
        VM.prank(PAYER);
        escrow.raise(account, 80e6, 50e6, 999);
    }

    function test_whoever_is_not_the_payee_moves_nothing_of_it() public {
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotOwner.selector, provider, STRANGER));
        VM.prank(STRANGER);
        escrow.setPayTo(provider, STRANGER);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotOwner.selector, provider, STRANGER));
        VM.prank(STRANGER);
        escrow.refund(account, provider, 1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.UnknownPayee.selector, uint32(77)));
        escrow.collect(77, _one());
    }

    function test_a_settler_that_never_enrolled_is_named() public {
        VM.expectRevert(abi.encodeWithSelector(IEscrow.UnknownSettler.selector, uint32(77)));
        VM.prank(PAYER);
        escrow.schedule(account, IEscrow.Limits(1, 1, 1, 77));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.UnknownSettler.selector, uint32(77)));
        escrow.halt(77);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.UnknownSettler.selector, uint32(77)));
        escrow.viewSettler(77);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotCold.selector, settler, STRANGER));
        VM.prank(STRANGER);
        escrow.rotate(settler, STRANGER, true);
    }

    function test_the_keys_of_a_settler_are_shown_as_they_are() public {
        escrow.rotate(settler, PLATFORM, false);
        escrow.halt(settler);
        IEscrow.SettlerView memory seen = escrow.viewSettler(settler);
        require(seen.hot == PLATFORM && seen.cold == address(this) && seen.previous == hot, "keys");
        _eq(seen.previousUntil, _now() + 7 days, "the old one's time");
        _eq(seen.haltedUntil, _now() + 12 hours, "halted");
    }

    function test_a_key_that_still_has_its_time_is_not_rotated_away_by_another_rotation() public {
        bytes memory signature = _signed(provider, 1e6);
        escrow.rotate(settler, PLATFORM, false);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.TooEarly.selector, _now() + 7 days));
        escrow.rotate(settler, STRANGER, false);
        _eq(escrow.claim(account, provider, 1e6, signature), 1e6, "the first key's row");
        escrow.rotate(settler, STRANGER, true);
        require(escrow.viewSettler(settler).previous == address(0), "void at once, when it was stolen");
    }

    function test_what_a_halted_settler_can_spend_is_nothing() public {
        escrow.halt(settler);
        _eq(escrow.viewAccount(account).spendable, 0, "halted");
        _later(12 hours);
        _eq(escrow.viewAccount(account).spendable, 50e6, "again");
    }

    function test_no_more_thaws_than_there_is_and_nothing_is_released_that_does_not_thaw() public {
        VM.expectRevert(abi.encodeWithSelector(IEscrow.BalanceTooLow.selector, account, 100e6 + 1, 100e6));
        VM.prank(PAYER);
        escrow.thaw(account, 100e6 + 1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingThaws.selector, account));
        escrow.release(account, "");
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingScheduled.selector, account));
        escrow.applyChange(account);
    }

    function test_a_dispute_needs_its_fee_in_the_account() public {
        _post(_row(provider, 50e6));
        VM.prank(PAYER);
        escrow.thaw(account, 50e6);
        _later(THAW);
        VM.prank(PAYER);
        escrow.withdraw(account);
        _deposit(CASE_FEE - 1 + 10);
        _post(_row(provider, 50e6 + 10));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.BalanceTooLow.selector, account, CASE_FEE, CASE_FEE - 1));
        VM.prank(PAYER);
        escrow.dispute(account, provider);
    }

    function test_no_more_is_refunded_than_the_lane_still_has() public {
        _post(_row(provider, 5e6));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.BalanceTooLow.selector, account, 5e6 + 1, 5e6));
        VM.prank(PROVIDER);
        escrow.refund(account, provider, 5e6 + 1);
    }

    function test_the_test_token_has_the_decimals_of_the_real_one() public view {
        _eq(token.decimals(), 6, "decimals");
    }
}
