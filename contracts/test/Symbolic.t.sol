// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Base} from "./Base.sol";
import {Escrow} from "../src/Escrow.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// The arithmetic of lanes and limits, laid open.
contract OpenEscrow is Escrow {
    constructor(IERC20 token, Terms memory terms) Escrow(token, terms) {
        _lastPayee = 1;
    }

    function setLane(Lane memory lane) external {
        _write(_lanes[0][1], lane);
    }

    function laneOf() external view returns (Lane memory) {
        return _lanes[0][1];
    }

    function credit(uint72 total) external returns (bool held, uint256 credited) {
        return _credit(_lanes[0], 1, total);
    }

    function withdrawMature() external returns (uint256) {
        return _withdrawMature(_lanes[0][1]);
    }

    function setFunds(Funds memory funds, uint40 burst, uint40 rate) external {
        _write(_accounts[0].funds, funds);
        (_accounts[0].bounds.burst, _accounts[0].bounds.rate) = (burst, rate);
    }

    function fundsOf() external view returns (Funds memory) {
        return _accounts[0].funds;
    }

    function spend(uint256 amount) external {
        _spend(0, amount);
    }
}

/// What holds for every lane and account there can be. Halmos proves it for all values (`make contracts-analysis`), forge
/// tries it with many.
contract SymbolicTest is Base {
    OpenEscrow private opened;
    uint40 private constant NOW = 1_700_000_000;

    function setUp() public {
        VM.warp(NOW);
        opened = new OpenEscrow(IERC20(address(1)), _terms());
    }

    /// Any lane that can be: its numbers in their order, last credited at any time until now, or disputed until later.
    function _any(uint72 posted, uint72 mature, uint72 withdrawn, uint40 since)
        private
        returns (Escrow.Lane memory lane)
    {
        VM.assume(withdrawn <= mature && mature <= posted && since <= NOW + CASE);
        lane = _laneOf(posted, mature, withdrawn, since);
        opened.setLane(lane);
    }

    function _laneOf(uint72 posted, uint72 mature, uint72 withdrawn, uint40 since)
        private
        pure
        returns (Escrow.Lane memory lane)
    {
        (lane.posted, lane.mature, lane.withdrawn, lane.since) = (posted, mature, withdrawn, since);
    }

    function testFuzz_a_slot_reads_as_it_was_written(uint72 posted, uint72 mature, uint72 withdrawn, uint40 since)
        public
    {
        opened.setLane(_laneOf(posted, mature, withdrawn, since));
        Escrow.Lane memory lane = opened.laneOf();
        assert(lane.posted == posted && lane.mature == mature && lane.withdrawn == withdrawn && lane.since == since);
    }

    function testFuzz_a_credit_is_what_the_lane_lacks_and_keeps_its_numbers_in_order(
        uint72 posted,
        uint72 mature,
        uint72 withdrawn,
        uint40 since,
        uint72 total
    ) public {
        Escrow.Lane memory before = _any(posted, mature, withdrawn, since);
        (bool held, uint256 credited) = opened.credit(total);
        Escrow.Lane memory lane = opened.laneOf();
        assert(lane.posted == before.posted + credited);
        assert(lane.posted >= before.posted && lane.mature >= before.mature && lane.withdrawn == before.withdrawn);
        assert(lane.withdrawn <= lane.mature && lane.mature <= lane.posted);
        assert(credited == 0 || lane.posted == total);
        // Held back is only what raises a lane whose last credit is in its window; a case takes what comes in.
        assert(held == (total > posted && mature < posted && since <= NOW && NOW < uint256(since) + WINDOW));
        // What joins a case leaves its end and what it left out as they are, and has a window at least.
        if (credited != 0 && mature < posted && since > NOW) assert(lane.since == since && lane.mature == mature);
        assert(held || total <= posted || lane.posted == total);
    }

    /// For any two rows, and so for both orders of them; and then for any number, one after the other.
    function testFuzz_rows_in_any_order_end_at_the_greatest_total(
        uint72 posted,
        uint72 mature,
        uint72 withdrawn,
        uint40 since,
        uint72 one,
        uint72 other
    ) public {
        _any(posted, mature, withdrawn, since);
        VM.warp(uint256(NOW) + CASE + WINDOW);
        opened.credit(one);
        VM.warp(uint256(NOW) + CASE + 2 * WINDOW);
        opened.credit(other);
        uint72 greatest = one > other ? one : other;
        assert(opened.laneOf().posted == (greatest > posted ? greatest : posted));
    }

    function testFuzz_withdrawing_takes_what_is_mature_and_never_twice(
        uint72 posted,
        uint72 mature,
        uint72 withdrawn,
        uint40 since
    ) public {
        Escrow.Lane memory before = _any(posted, mature, withdrawn, since);
        uint256 part = opened.withdrawMature();
        Escrow.Lane memory lane = opened.laneOf();
        assert(lane.withdrawn == withdrawn + part && lane.withdrawn == lane.mature && lane.mature <= posted);
        assert(lane.posted == before.posted && lane.since == before.since);
        assert(lane.mature == (NOW < uint256(since) + WINDOW ? mature : posted));
        assert(opened.withdrawMature() == 0);
    }

    function testFuzz_what_is_spent_keeps_within_balance_allowance_burst_and_rate(
        uint72 balance,
        uint72 allowance,
        uint40 level,
        uint40 levelAt,
        uint40 burst,
        uint40 rate,
        uint72 amount
    ) public {
        VM.assume(levelAt <= NOW && level <= burst && amount != 0);
        Escrow.Funds memory before;
        (before.balance, before.allowance, before.level) = (balance, allowance, level);
        (before.levelAt, before.settler) = (levelAt, 7);
        opened.setFunds(before, burst, rate);
        try opened.spend(amount) {
            Escrow.Funds memory funds = opened.fundsOf();
            assert(funds.balance + amount == balance && funds.allowance + amount == allowance);
            assert(amount <= burst && amount <= level + uint256(rate) * (NOW - levelAt));
            // The bucket never holds more than burst, nor more than what was there and flowed in.
            assert(uint256(funds.level) + amount <= burst);
            assert(uint256(funds.level) + amount <= level + uint256(rate) * (NOW - levelAt));
            assert(funds.levelAt == NOW && funds.settler == 7);
        } catch {
            uint256 there = level + uint256(rate) * (NOW - levelAt);
            assert(amount > balance || amount > allowance || amount > burst || amount > there);
        }
    }
}
