// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Base} from "./Base.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";

/// Does what the parties may do, in any order, and keeps a record of its own to hold the contract against.
contract Handler is Base {
    uint256 public deposited;
    uint256 public returned;
    uint256 public started;
    mapping(uint32 payee => uint72) public greatest;
    mapping(uint32 payee => uint256) public paid;
    mapping(uint32 payee => uint256) public returnedByLane;
    mapping(uint32 payee => uint256) public lastDueAt;
    mapping(uint32 payee => IEscrow.LaneView) private seen;
    uint256 public fees;
    uint256 public feesPaid;
    uint256 public cuts;
    uint256 public refunds;
    uint256 public frozenAt;
    uint256 public loweredEarly;
    uint256 public creditedFrozen;
    uint256 public fell;
    uint256 public lowerings;

    constructor() {
        _prepare(0, type(uint72).max, 500e6, 2000);
        VM.prank(PAYER);
        escrow.appoint(account, GUARDIAN);
        started = _now();
    }

    function addMoney(uint64 amount) external {
        if (amount == 0) return;
        _deposit(amount);
        deposited += amount;
    }

    function postRow(bool first, uint64 more) external {
        if (_now() < escrow.viewAccount(account).frozenUntil) return;
        (uint32 payee, uint72 total) = _affordable(first, more);
        if (_post(_row(payee, total)) != 0) lastDueAt[payee] = _now() + WINDOW;
        _look();
    }

    function repeatRow(bool first) external {
        if (_now() < escrow.viewAccount(account).frozenUntil) return;
        uint32 payee = first ? provider : platform;
        _eq(_post(_row(payee, escrow.viewLane(account, payee).posted)), 0, "a repeated row was credited");
    }

    function claimRow(bool first, uint64 more) external {
        if (_now() < escrow.viewAccount(account).frozenUntil) return;
        (uint32 payee, uint72 total) = _affordable(first, more);
        IEscrow.LaneView memory lane = escrow.viewLane(account, payee);
        if (lane.mature < lane.posted && total > lane.posted) return;
        if (escrow.claim(account, payee, total, _signed(payee, total)) != 0) lastDueAt[payee] = _now() + WINDOW;
        _look();
    }

    function collect(bool first) external {
        uint32 payee = first ? provider : platform;
        IEscrow.LaneView memory lane = escrow.viewLane(account, payee);
        if (lane.mature == lane.withdrawn) return;
        paid[payee] += escrow.collect(payee, _one());
    }

    function dispute(bool first) external {
        uint32 payee_ = first ? provider : platform;
        IEscrow.LaneView memory now_ = escrow.viewLane(account, payee_);
        if (now_.mature == now_.posted || now_.disputedUntil != 0) return;
        if (escrow.viewAccount(account).balance < CASE_FEE) return;
        VM.prank(first ? PAYER : GUARDIAN);
        escrow.dispute(account, payee_);
        fees += CASE_FEE;
        lastDueAt[payee_] = _now() + CASE;
        _look();
    }

    function resolve(bool first, uint72 cut) external {
        uint32 payee_ = first ? provider : platform;
        IEscrow.LaneView memory now_ = escrow.viewLane(account, payee_);
        if (now_.disputedUntil == 0) return;
        cut = cut % (now_.posted - now_.mature + 1);
        VM.prank(ARBITER);
        escrow.resolve(account, payee_, cut);
        cuts += cut;
        returnedByLane[payee_] += cut;
        _look();
    }

    function refund(bool first, uint72 amount) external {
        uint32 payee_ = first ? provider : platform;
        IEscrow.LaneView memory now_ = escrow.viewLane(account, payee_);
        if (now_.posted == now_.withdrawn) return;
        amount = amount % (now_.posted - now_.withdrawn) + 1;
        VM.prank(first ? PROVIDER : PLATFORM);
        escrow.refund(account, payee_, amount);
        refunds += amount;
        returnedByLane[payee_] += amount;
        _look();
    }

    function collectFees() external {
        if (fees != feesPaid) feesPaid += escrow.collectCaseFees();
    }

    function freeze(bool guard) external {
        if (frozenAt != 0 && _now() < frozenAt + 3 days + THAW + 1 days) return;
        VM.prank(guard ? GUARDIAN : PAYER);
        escrow.freeze(account);
        frozenAt = _now();
        (bool ok,) = _tryPost(_row(provider, escrow.viewLane(account, provider).posted + 1));
        if (ok) ++creditedFrozen;
    }

    function lower(uint40 rate) external {
        IEscrow.Limits memory limits = escrow.viewAccount(account).limits;
        limits.rate = rate % (limits.rate + 1);
        VM.prank(PAYER);
        escrow.schedule(account, limits);
        (bool ok,) = address(escrow).call(abi.encodeCall(IEscrow.applyChange, (account)));
        if (ok) ++loweredEarly;
    }

    function applyLower() external {
        uint256 applyAt = escrow.viewChange(account).applyAt;
        if (applyAt == 0 || _now() < applyAt) return;
        escrow.applyChange(account);
        ++lowerings;
    }

    function _tryPost(bytes memory rows) private returns (bool ok, bytes memory data) {
        VM.prank(hot);
        return address(escrow).call(abi.encodeCall(IEscrow.post, (account, rows, 0, 0)));
    }

    /// Has any number of a lane fallen since we last looked?
    function _look() private {
        for (uint256 n; n < 2; ++n) {
            uint32 payee_ = n == 0 ? provider : platform;
            IEscrow.LaneView memory before = seen[payee_];
            IEscrow.LaneView memory now_ = escrow.viewLane(account, payee_);
            if (now_.posted < before.posted || now_.mature < before.mature || now_.withdrawn < before.withdrawn) {
                ++fell;
            }
            seen[payee_] = now_;
        }
    }

    function thawSome(uint72 amount) external {
        uint72 balance = escrow.viewAccount(account).balance;
        if (balance == 0) return;
        VM.prank(PAYER);
        escrow.thaw(account, amount % balance + 1);
    }

    function withdraw() external {
        IEscrow.AccountView memory seen = escrow.viewAccount(account);
        if (seen.thawing == 0 || _now() < seen.thawEnd) return;
        uint256 before = token.balanceOf(PAYER);
        VM.prank(PAYER);
        escrow.withdraw(account);
        returned += token.balanceOf(PAYER) - before;
    }

    function pass(uint24 seconds_) external {
        _later(seconds_ % (2 * THAW));
    }

    function _affordable(bool first, uint64 more) private returns (uint32 payee, uint72 total) {
        payee = first ? provider : platform;
        uint72 spendable = escrow.viewAccount(account).spendable;
        total = escrow.viewLane(account, payee).posted + (spendable == 0 ? 0 : uint72(more) % (spendable + 1));
        if (total > greatest[payee]) greatest[payee] = total;
    }

    // --- What the invariants ask ---

    function lane(bool first) external view returns (IEscrow.LaneView memory) {
        return escrow.viewLane(account, first ? provider : platform);
    }

    function payee(bool first) external view returns (uint32) {
        return first ? provider : platform;
    }

    function funds() external view returns (IEscrow.AccountView memory) {
        return escrow.viewAccount(account);
    }

    function paidTo(bool first) external view returns (uint256) {
        return token.balanceOf(first ? PROVIDER : PLATFORM);
    }

    function payerHas() external view returns (uint256) {
        return token.balanceOf(PAYER);
    }

    function arbiterHas() external view returns (uint256) {
        return token.balanceOf(ARBITER);
    }

    function mayCollect(bool first) external returns (bool ok) {
        uint32 payee_ = first ? provider : platform;
        IEscrow.LaneView memory now_ = escrow.viewLane(account, payee_);
        if (now_.mature == now_.withdrawn) return true;
        (ok,) = address(escrow).call(abi.encodeCall(IEscrow.collect, (payee_, _one())));
        if (ok) paid[payee_] += now_.mature - now_.withdrawn;
    }

    function time() external view returns (uint256) {
        return _now();
    }

    function terms() external view returns (uint256 window, uint256 thaw, uint256 case_) {
        return (escrow.WINDOW(), escrow.THAW(), escrow.CASE());
    }

    function held() external view returns (uint256) {
        return token.balanceOf(address(escrow));
    }

    function mostThatMayHaveLeft() external view returns (uint256) {
        return 500e6 + 2000 * (_now() - started);
    }
}

contract EscrowInvariants {
    Handler private handler;

    function setUp() public {
        handler = new Handler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function _posted() private view returns (uint256) {
        return uint256(handler.lane(true).posted) + handler.lane(false).posted;
    }

    function _returned() private view returns (uint256) {
        return handler.cuts() + handler.refunds();
    }

    function invariant_01_the_contract_holds_exactly_what_it_owes() public view {
        uint256 owed = handler.funds().balance + handler.fees() - handler.feesPaid();
        owed += handler.lane(true).posted - handler.lane(true).withdrawn;
        owed += handler.lane(false).posted - handler.lane(false).withdrawn;
        require(handler.held() == owed, "solvency");
    }

    function invariant_02_every_unit_deposited_is_somewhere() public view {
        uint256 out = _posted() + handler.returned() + handler.fees();
        require(handler.deposited() + _returned() == handler.funds().balance + out, "conservation");
    }

    function invariant_03_nothing_is_withdrawn_that_is_not_mature() public view {
        require(handler.lane(true).withdrawn <= handler.lane(true).mature, "first");
        require(handler.lane(false).withdrawn <= handler.lane(false).mature, "second");
    }

    function invariant_04_nothing_is_mature_that_is_not_posted() public view {
        require(handler.lane(true).mature <= handler.lane(true).posted, "first");
        require(handler.lane(false).mature <= handler.lane(false).posted, "second");
    }

    function invariant_05_nothing_is_posted_beyond_the_greatest_signed_total() public view {
        require(handler.lane(true).posted <= handler.greatest(handler.payee(true)), "first");
        require(handler.lane(false).posted <= handler.greatest(handler.payee(false)), "second");
    }

    function invariant_06_what_a_lane_withdrew_was_paid_or_returned() public view {
        for (uint256 n; n < 2; ++n) {
            uint32 number = handler.payee(n == 0);
            require(
                handler.paid(number) + handler.returnedByLane(number) == handler.lane(n == 0).withdrawn, "withdrawn"
            );
        }
    }

    function invariant_07_a_payee_has_what_was_paid() public view {
        require(handler.paidTo(true) == handler.paid(handler.payee(true)), "first");
        require(handler.paidTo(false) == handler.paid(handler.payee(false)), "second");
    }

    function invariant_08_no_more_is_credited_than_burst_and_rate_allow() public view {
        require(_posted() <= handler.mostThatMayHaveLeft(), "rate");
    }

    function invariant_09_what_left_and_what_is_left_is_the_allowance() public view {
        require(handler.funds().limits.allowance + _posted() == type(uint72).max, "allowance");
    }

    function invariant_10_spendable_is_within_balance_burst_and_allowance() public view {
        IEscrow.AccountView memory seen = handler.funds();
        require(seen.spendable <= seen.balance && seen.spendable <= seen.limits.burst, "spendable");
        require(seen.spendable <= seen.limits.allowance, "allowance");
    }

    function invariant_11_the_payer_gets_back_only_what_it_withdrew() public view {
        require(handler.payerHas() == handler.returned(), "payer");
    }

    function invariant_12_the_arbiter_gets_only_fees() public view {
        require(handler.arbiterHas() == handler.feesPaid() && handler.feesPaid() <= handler.fees(), "fees");
    }

    function invariant_13_a_cut_never_exceeds_what_was_posted() public view {
        require(_returned() <= _posted(), "returned");
    }

    function invariant_14_no_number_of_a_lane_ever_falls() public view {
        require(handler.fell() == 0, "fell");
    }

    function invariant_15_no_lowering_acts_within_a_thaw() public view {
        require(handler.loweredEarly() == 0, "lowered");
    }

    function invariant_16_nothing_is_credited_while_frozen() public view {
        require(handler.creditedFrozen() == 0, "credited");
    }

    function invariant_17_every_unit_matures_by_time_alone() public view {
        for (uint256 n; n < 2; ++n) {
            if (handler.time() < handler.lastDueAt(handler.payee(n == 0))) continue;
            require(handler.lane(n == 0).mature == handler.lane(n == 0).posted, "unmatured");
        }
    }

    function invariant_18_no_lane_is_held_longer_than_window_and_case() public view {
        (uint256 window,, uint256 case_) = handler.terms();
        require(handler.lane(true).maturesAt <= handler.time() + window + case_, "first");
        require(handler.lane(false).maturesAt <= handler.time() + window + case_, "second");
    }

    function invariant_19_what_is_mature_can_always_be_collected() public {
        require(handler.mayCollect(true) && handler.mayCollect(false), "collect");
    }

    function invariant_20_a_change_waits_no_longer_than_a_freeze_and_a_thaw() public view {
        (, uint256 thaw,) = handler.terms();
        require(handler.funds().thawEnd <= handler.time() + 3 days + thaw, "thaw");
    }

    function invariant_21_limits_change_only_by_the_payer() public view {
        require(handler.funds().limits.rate == 2000 || handler.lowerings() != 0, "rate");
        require(handler.funds().limits.burst == 500e6, "burst");
    }
}
