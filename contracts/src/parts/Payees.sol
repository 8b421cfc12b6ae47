// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Store} from "./Store.sol";

/// @title Payees: who is paid, and paying them
abstract contract Payees is Store {
    using SafeERC20 for IERC20;

    function register(address payTo) external returns (uint32 payee) {
        require(payTo != address(0), ZeroAddress());
        payee = ++_lastPayee;
        _payees[payee].owner = msg.sender;
        _payees[payee].payTo = payTo;
        emit Registered(payee, msg.sender, payTo);
    }

    function setPayTo(uint32 payee, address payTo) external {
        Payee storage record = _payee(payee);
        require(msg.sender == record.owner, NotOwner(payee, msg.sender));
        require(payTo != address(0), ZeroAddress());
        record.payTo = _payTo(record);
        record.next = payTo;
        record.changeAt = uint40(block.timestamp) + PAY_TO_DELAY;
        emit PayToScheduled(payee, payTo, record.changeAt);
    }

    function collect(uint32 payee, bytes32[] calldata accounts) external nonReentrant returns (uint256 amount) {
        address payTo = _payTo(_payee(payee));
        for (uint256 n; n < accounts.length; ++n) {
            uint256 part = _withdrawMature(_lanes[accounts[n]][payee]);
            unchecked {
                // No more parts fit into a transaction than would overflow: a part has 72 bits.
                amount += part;
            }
        }
        require(amount != 0, NothingToCollect(payee));
        emit Collected(payee, amount);
        TOKEN.safeTransfer(payTo, amount);
    }

    function refund(bytes32 account, uint32 payee, uint72 amount) external {
        Payee storage record = _payee(payee);
        require(msg.sender == record.owner, NotOwner(payee, msg.sender));
        require(amount != 0, ZeroAmount());
        Lane memory lane = _lanes[account][payee];
        uint72 left = lane.posted - lane.withdrawn;
        require(amount <= left, BalanceTooLow(account, amount, left));
        // Every number of a lane only rises: what goes back counts as withdrawn, and so as mature.
        lane.withdrawn += amount;
        lane.mature = _mature(lane);
        if (lane.mature < lane.withdrawn) lane.mature = lane.withdrawn;
        _write(_lanes[account][payee], lane);
        // With nothing left to hold, its case is over: the next credit is disputed for itself.
        _giveBack(account, payee, amount, lane.mature == lane.posted);
        emit Refunded(account, payee, amount);
    }
}
