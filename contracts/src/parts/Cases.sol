// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Store} from "./Store.sol";

/// @title Cases: disputing what has not matured
abstract contract Cases is Store {
    using SafeERC20 for IERC20;

    function dispute(bytes32 account, uint32 payee) external {
        Account storage record = _onlyPayerOrGuardian(account);
        Lane storage lane = _lanes[account][payee];
        uint72 disputed = lane.posted - _mature(lane);
        require(disputed != 0, NothingToDispute(account, payee));
        Case storage case_ = _cases[account][payee];
        uint40 lapsesAt = case_.lapsesAt;
        require(block.timestamp >= lapsesAt, AlreadyDisputed(account, payee, lapsesAt));
        uint72 balance = record.funds.balance;
        require(CASE_FEE <= balance, BalanceTooLow(account, CASE_FEE, balance));
        record.funds.balance = balance - CASE_FEE;
        record.funded -= CASE_FEE;
        _caseFees += CASE_FEE;
        lapsesAt = uint40(block.timestamp) + CASE;
        case_.lapsesAt = lapsesAt;
        case_.fees += CASE_FEE;
        lane.since = lapsesAt - WINDOW;
        emit Disputed(account, payee, msg.sender, disputed, lapsesAt);
    }

    function resolve(bytes32 account, uint32 payee, uint72 cut) external {
        require(msg.sender == ARBITER, NotArbiter(msg.sender));
        require(block.timestamp < _cases[account][payee].lapsesAt, NotDisputed(account, payee));
        Lane memory lane = _lanes[account][payee];
        uint72 disputed = lane.posted - lane.mature;
        require(cut <= disputed, CutTooLarge(cut, disputed));
        // The total stays, so that posting it again credits nothing; what is cut counts as withdrawn.
        lane.withdrawn += cut;
        lane.mature = lane.posted;
        _write(_lanes[account][payee], lane);
        _giveBack(account, payee, cut, true);
        emit Resolved(account, payee, cut, disputed - cut);
    }

    function collectCaseFees() external nonReentrant returns (uint256 amount) {
        amount = _caseFees;
        require(amount != 0, ZeroAmount());
        _caseFees = 0;
        emit CaseFeesCollected(amount);
        TOKEN.safeTransfer(ARBITER, amount);
    }
}
