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

    constructor() {
        _prepare(0, type(uint72).max, 500e6, 2000);
        started = _now();
    }

    function addMoney(uint64 amount) external {
        if (amount == 0) return;
        _deposit(amount);
        deposited += amount;
    }

    function postRow(bool first, uint64 more) external {
        (uint32 payee, uint72 total) = _affordable(first, more);
        _post(_row(payee, total));
    }

    function repeatRow(bool first) external {
        uint32 payee = first ? provider : platform;
        _eq(_post(_row(payee, escrow.viewLane(account, payee).posted)), 0, "a repeated row was credited");
    }

    function claimRow(bool first, uint64 more) external {
        (uint32 payee, uint72 total) = _affordable(first, more);
        IEscrow.LaneView memory lane = escrow.viewLane(account, payee);
        if (lane.mature < lane.posted && total > lane.posted) return;
        escrow.claim(account, payee, total, _signed(payee, total));
    }

    function collect(bool first) external {
        uint32 payee = first ? provider : platform;
        IEscrow.LaneView memory lane = escrow.viewLane(account, payee);
        if (lane.mature == lane.withdrawn) return;
        paid[payee] += escrow.collect(payee, _one());
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

    function invariant_the_contract_holds_exactly_what_it_owes() public view {
        uint256 owed = handler.funds().balance;
        owed += handler.lane(true).posted - handler.lane(true).withdrawn;
        owed += handler.lane(false).posted - handler.lane(false).withdrawn;
        require(handler.held() == owed, "solvency");
    }

    function invariant_every_unit_deposited_is_somewhere() public view {
        uint256 posted = uint256(handler.lane(true).posted) + handler.lane(false).posted;
        require(handler.deposited() == handler.funds().balance + posted + handler.returned(), "conservation");
    }

    function invariant_a_lane_is_withdrawn_then_mature_then_posted_then_signed() public view {
        for (uint256 n; n < 2; ++n) {
            IEscrow.LaneView memory lane = handler.lane(n == 0);
            require(lane.withdrawn <= lane.mature, "withdrawn beyond mature");
            require(lane.mature <= lane.posted, "mature beyond posted");
            require(lane.posted <= handler.greatest(handler.payee(n == 0)), "posted beyond signed");
        }
    }

    function invariant_a_payee_is_paid_what_its_lane_says_was_withdrawn() public view {
        require(handler.paid(handler.payee(true)) == handler.lane(true).withdrawn, "first");
        require(handler.paid(handler.payee(false)) == handler.lane(false).withdrawn, "second");
    }

    function invariant_no_more_is_credited_than_burst_and_rate_allow() public view {
        uint256 posted = uint256(handler.lane(true).posted) + handler.lane(false).posted;
        require(posted <= handler.mostThatMayHaveLeft(), "rate");
    }
}
