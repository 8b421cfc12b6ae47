// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Base} from "./Base.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";

/// Two things that may happen in the same second, in both orders.
contract RacesTest is Base {
    function setUp() public {
        _prepare(100e6, 80e6, 50e6, 1000);
        VM.prank(PAYER);
        escrow.appoint(account, GUARDIAN);
    }

    function _thaw(uint72 amount) private {
        VM.prank(PAYER);
        escrow.thaw(account, amount);
    }

    function _withdraw() private {
        VM.prank(PAYER);
        escrow.withdraw(account);
    }

    function _dispute() private {
        VM.prank(GUARDIAN);
        escrow.dispute(account, provider);
    }

    function test_a_lane_is_held_until_the_last_second_of_its_window_and_free_in_the_next() public {
        _post(_row(provider, 10e6));
        _later(WINDOW - 1);
        _eq(_post(_row(provider, 11e6)), 0, "held");
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingToCollect.selector, provider));
        escrow.collect(provider, _one());
        _later(1);
        _eq(_post(_row(provider, 11e6)), 1e6, "free");
        _eq(escrow.collect(provider, _one()), 10e6, "and what matured is collected beside the new credit");
    }

    function test_a_dispute_comes_in_time_in_the_last_second_and_too_late_in_the_next() public {
        _post(_row(provider, 10e6));
        _later(WINDOW);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingToDispute.selector, account, provider));
        _dispute();
        _post(_row(provider, 11e6));
        _later(WINDOW - 1);
        _dispute();
        _eq(escrow.viewLane(account, provider).disputedUntil, _now() + CASE, "held");
        _eq(escrow.collect(provider, _one()), 10e6, "what matured before is not");
    }

    function test_a_case_lapses_in_its_second_for_the_arbiter_too() public {
        _post(_row(provider, 10e6));
        _dispute();
        _later(CASE);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotDisputed.selector, account, provider));
        VM.prank(ARBITER);
        escrow.resolve(account, provider, 10e6);
        _eq(escrow.collect(provider, _one()), 10e6, "the payee's");
    }

    function test_a_post_in_the_second_that_a_thaw_ends_takes_what_is_owed_when_it_is_first() public {
        _thaw(100e6);
        _later(THAW);
        _eq(_post(_row(provider, 10e6)), 10e6, "first the post");
        _withdraw();
        _eq(token.balanceOf(PAYER), 90e6, "then what is left");
    }

    function test_a_post_after_the_withdrawal_finds_nothing_and_changes_nothing() public {
        _thaw(100e6);
        _later(THAW);
        _withdraw();
        VM.expectRevert(abi.encodeWithSelector(IEscrow.BalanceTooLow.selector, account, 10e6, 0));
        _post(_row(provider, 10e6));
        _eq(escrow.viewLane(account, provider).posted, 0, "no lane without money");
    }

    function test_a_dispute_closes_no_lane_behind_which_a_payer_could_leave() public {
        _post(_row(provider, 10e6));
        _dispute();
        _thaw(80e6);
        bytes memory signature = _signed(provider, 40e6);
        _later(THAW - 1);
        _eq(escrow.claim(account, provider, 40e6, signature), 30e6, "joins the case");
        _eq(escrow.viewLane(account, provider).mature, 0, "held with the rest");
        _later(CASE - THAW + 1);
        _eq(escrow.collect(provider, _one()), 40e6, "and lapses with it");
    }

    function test_what_joins_a_case_does_so_until_a_window_before_it_lapses() public {
        _post(_row(provider, 10e6));
        _dispute();
        _later(CASE - WINDOW - 1);
        _eq(_post(_row(provider, 11e6)), 1e6, "joins");
        _later(1);
        _eq(_post(_row(provider, 12e6)), 0, "held: it would have no window");
        _later(WINDOW);
        _eq(_post(_row(provider, 12e6)), 1e6, "credited when the case has lapsed");
        _eq(escrow.viewLane(account, provider).mature, 11e6, "in a window of its own");
    }

    function test_an_arbiter_cuts_what_joined_a_case_and_no_more() public {
        _post(_row(provider, 10e6));
        _dispute();
        _post(_row(provider, 15e6));
        VM.expectRevert(abi.encodeWithSelector(IEscrow.CutTooLarge.selector, 15e6 + 1, 15e6));
        VM.prank(ARBITER);
        escrow.resolve(account, provider, 15e6 + 1);
        VM.prank(ARBITER);
        escrow.resolve(account, provider, 15e6);
        _eq(escrow.viewAccount(account).balance, 100e6 - CASE_FEE, "all of it is back");
    }

    function test_a_case_ends_when_all_it_holds_is_refunded_and_the_next_credit_has_its_own() public {
        _post(_row(provider, 1e6));
        _dispute();
        VM.prank(PROVIDER);
        escrow.refund(account, provider, 1e6);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NotDisputed.selector, account, provider));
        VM.prank(ARBITER);
        escrow.resolve(account, provider, 0);
        _post(_row(provider, 31e6));
        _dispute();
        _eq(escrow.viewLane(account, provider).disputedUntil, _now() + CASE, "its own case");
    }

    function test_a_stolen_payer_key_uses_up_no_freeze_of_the_guardian() public {
        VM.prank(PAYER);
        escrow.freeze(account);
        _thaw(100e6);
        _later(3 days + THAW - 1);
        VM.prank(GUARDIAN);
        escrow.freeze(account);
        _later(1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingThaws.selector, account));
        _withdraw();
    }

    function test_a_thaw_ends_not_a_second_early() public {
        _thaw(100e6);
        _later(THAW - 1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.StillThawing.selector, account, _now() + 1));
        _withdraw();
    }

    function test_a_freeze_in_the_last_second_of_a_thaw_starts_it_anew_and_a_second_later_is_too_late() public {
        _thaw(50e6);
        _later(THAW);
        _withdraw();
        _eq(token.balanceOf(PAYER), 50e6, "out");
        _thaw(50e6);
        _later(THAW - 1);
        VM.prank(GUARDIAN);
        escrow.freeze(account);
        _later(1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.NothingThaws.selector, account));
        _withdraw();
        _thaw(50e6);
        _eq(escrow.viewAccount(account).thawEnd, uint256(escrow.viewAccount(account).frozenUntil) + THAW, "anew");
    }

    function test_a_second_thaw_never_shortens_the_first() public {
        _thaw(10e6);
        _later(THAW - 1);
        _thaw(100e6);
        _later(1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.StillThawing.selector, account, _now() + THAW - 1));
        _withdraw();
    }

    function test_a_lowering_acts_in_its_second_and_for_what_was_spent_until_then() public {
        VM.prank(PAYER);
        escrow.schedule(account, IEscrow.Limits(5e6, 5e6, 10, settler));
        _later(THAW - 1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.TooEarly.selector, _now() + 1));
        escrow.applyChange(account);
        _eq(_post(_row(provider, 50e6)), 50e6, "within the old limits");
        _later(1);
        escrow.applyChange(account);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.RateExceeded.selector, account, 5e6, 1000));
        _post(_row(platform, 5e6));
    }

    function test_a_raise_while_a_lowering_waits_does_not_undo_it() public {
        VM.prank(PAYER);
        escrow.schedule(account, IEscrow.Limits(5e6, 5e6, 10, settler));
        VM.prank(PAYER);
        escrow.raise(account, 90e6, 60e6, 2000);
        _later(THAW);
        escrow.applyChange(account);
        IEscrow.Limits memory limits = escrow.viewAccount(account).limits;
        require(limits.allowance == 5e6 && limits.burst == 5e6 && limits.rate == 10, "lowered");
    }

    function test_a_halt_ends_in_its_second_and_freezes_no_collecting() public {
        _post(_row(provider, 10e6));
        escrow.halt(settler);
        _later(WINDOW);
        _eq(escrow.collect(provider, _one()), 10e6, "collecting goes on");
        _later(12 hours - WINDOW - 1);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.SettlerHalted.selector, settler, _now() + 1));
        _post(_row(provider, 11e6));
        _later(1);
        _eq(_post(_row(provider, 11e6)), 1e6, "goes on");
    }

    function test_a_voucher_claimed_while_its_row_is_posted_credits_it_once() public {
        bytes memory signature = _signed(provider, 10e6);
        _post(_row(provider, 10e6));
        _eq(escrow.claim(account, provider, 10e6, signature), 0, "after the post");
        _later(WINDOW);
        signature = _signed(provider, 12e6);
        _eq(escrow.claim(account, provider, 12e6, signature), 2e6, "before the post");
        _eq(_post(_row(provider, 12e6)), 0, "once");
    }

    function test_a_new_pay_to_address_applies_in_its_second() public {
        _post(_row(provider, 10e6));
        VM.prank(PROVIDER);
        escrow.setPayTo(provider, STRANGER);
        _later(7 days - 1);
        escrow.collect(provider, _one());
        _eq(token.balanceOf(PROVIDER), 10e6, "to the old one");
        _post(_row(provider, 11e6));
        _later(WINDOW);
        escrow.collect(provider, _one());
        _eq(token.balanceOf(STRANGER), 1e6, "to the new one");
    }
}
