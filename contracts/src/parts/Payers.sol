// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Store} from "./Store.sol";

/// @title Payers: opening, filling, limiting, freezing and leaving accounts
abstract contract Payers is Store {
    using SafeERC20 for IERC20;

    function open(bytes32 salt, bytes32 tenant, address guardian, Limits calldata limits)
        external
        returns (bytes32 account)
    {
        account = accountId(msg.sender, salt);
        Account storage record = _accounts[account];
        require(record.payer == address(0), AlreadyOpen(account));
        require(limits.settler != 0 && limits.settler <= _lastSettler, UnknownSettler(limits.settler));
        record.payer = msg.sender;
        record.funds = Funds(0, limits.allowance, limits.burst, uint40(block.timestamp), limits.settler);
        (record.bounds.burst, record.bounds.rate) = (limits.burst, limits.rate);
        emit Opened(account, msg.sender, salt);
        emit LimitsRaised(account, limits.allowance, limits.burst, limits.rate);
        if (tenant != 0) bind(account, tenant);
        if (guardian != address(0)) appoint(account, guardian);
    }

    function bind(bytes32 account, bytes32 tenant) public {
        Account storage record = _onlyPayer(account);
        require(record.tenant == 0, AlreadyBound(account, record.tenant));
        record.tenant = tenant;
        emit Bound(account, tenant);
    }

    function appoint(bytes32 account, address guardian) public {
        Account storage record = _onlyPayer(account);
        address current = _guardian(record);
        if (current == address(0)) {
            (record.guardian, record.nextGuardian, record.guardianAt) = (guardian, address(0), 0);
            emit GuardianAppointed(account, guardian, block.timestamp);
            return;
        }
        // The guardian is there for the day that the payer's key is stolen: it can't be dismissed at once.
        uint40 from = uint40(block.timestamp) + THAW;
        (record.guardian, record.nextGuardian, record.guardianAt) = (current, guardian, from);
        emit GuardianAppointed(account, guardian, from);
    }

    function deposit(bytes32 account, uint256 amount) public nonReentrant {
        Account storage record = _accounts[account];
        require(record.payer != address(0), UnknownAccount(account));
        require(amount != 0, ZeroAmount());
        require(amount <= type(uint72).max - record.funds.balance, AmountTooLarge(amount));
        uint72 balance = record.funds.balance + uint72(amount);
        record.funds.balance = balance;
        record.funded += uint72(amount);
        emit Deposited(account, msg.sender, amount, balance);
        // Only ever from the sender: nobody's approval can be spent by somebody else.
        uint256 before = TOKEN.balanceOf(address(this));
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        uint256 arrived = TOKEN.balanceOf(address(this)) - before;
        require(arrived == amount, ShortTransfer(amount, arrived));
    }

    function depositWithPermit(bytes32 account, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
    {
        // Somebody may have sent the permit ahead of us: then the approval is there, and the transfer decides. Nothing of
        // ours is written before or depends on it.
        // slither-disable-next-line reentrancy-events
        try IERC20Permit(address(TOKEN)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        deposit(account, amount);
    }

    function raise(bytes32 account, uint72 allowance, uint40 burst, uint40 rate) external {
        Account storage record = _onlyPayer(account);
        (Funds memory funds, Bounds storage bounds) = (record.funds, record.bounds);
        require(allowance >= funds.allowance, OnlyRaises(funds.allowance, allowance));
        require(burst >= bounds.burst, OnlyRaises(bounds.burst, burst));
        require(rate >= bounds.rate, OnlyRaises(bounds.rate, rate));
        // Until now it fills by the old rate.
        _fill(funds, bounds);
        funds.allowance = allowance;
        _write(record.funds, funds);
        (bounds.burst, bounds.rate) = (burst, rate);
        emit LimitsRaised(account, allowance, burst, rate);
    }

    function schedule(bytes32 account, Limits calldata limits) external {
        Account storage record = _onlyPayer(account);
        require(limits.settler != 0 && limits.settler <= _lastSettler, UnknownSettler(limits.settler));
        uint40 applyAt = _afterThaw(record);
        record.change = Change(limits.allowance, limits.burst, limits.rate, limits.settler, applyAt);
        emit ChangeScheduled(account, limits.allowance, limits.burst, limits.rate, limits.settler, applyAt);
    }

    function applyChange(bytes32 account) external {
        Account storage record = _accounts[account];
        Change memory change = record.change;
        require(change.applyAt != 0, NothingScheduled(account));
        require(block.timestamp >= change.applyAt, TooEarly(change.applyAt));
        (Funds memory funds, Bounds storage bounds) = (record.funds, record.bounds);
        _fill(funds, bounds);
        // What was spent since is spent: the lower of what is left and what was scheduled.
        if (change.allowance < funds.allowance) funds.allowance = change.allowance;
        if (change.burst < bounds.burst) bounds.burst = change.burst;
        if (change.rate < bounds.rate) bounds.rate = change.rate;
        if (funds.level > bounds.burst) funds.level = bounds.burst;
        funds.settler = change.settler;
        _write(record.funds, funds);
        delete record.change;
        emit ChangeApplied(account, funds.allowance, bounds.burst, bounds.rate, change.settler);
    }

    function thaw(bytes32 account, uint72 amount) external {
        Account storage record = _onlyPayer(account);
        require(amount != 0, ZeroAmount());
        uint72 balance = record.funds.balance;
        require(amount <= balance, BalanceTooLow(account, amount, balance));
        // A new call replaces the old one and starts its time again: two calls never add up to a shorter way out.
        uint40 thawEnd = _afterThaw(record);
        (record.bounds.thawing, record.bounds.thawEnd) = (amount, thawEnd);
        emit Thawing(account, amount, thawEnd);
    }

    function withdraw(bytes32 account) external nonReentrant {
        Account storage record = _onlyPayer(account);
        (uint72 thawing, uint40 thawEnd) = (record.bounds.thawing, record.bounds.thawEnd);
        uint72 balance = record.funds.balance;
        require(thawing != 0, NothingThaws(account));
        require(block.timestamp >= thawEnd, StillThawing(account, thawEnd));
        uint72 amount = thawing < balance ? thawing : balance;
        record.funds.balance = balance - amount;
        record.funded -= amount;
        record.bounds.thawing = 0;
        emit Withdrawn(account, amount, balance - amount);
        TOKEN.safeTransfer(msg.sender, amount);
    }

    function release(bytes32 account, bytes calldata signature) external {
        (uint32 number, Settler storage settler) = _settlerNow(account);
        Bounds storage bounds = _accounts[account].bounds;
        (uint72 thawing, uint40 thawEnd) = (bounds.thawing, bounds.thawEnd);
        require(thawing != 0, NothingThaws(account));
        _requireSigned(number, settler, releaseDigest(account, thawing, thawEnd), signature);
        uint40 released = uint40(block.timestamp) + RELEASED_THAW;
        if (released < thawEnd) thawEnd = released;
        bounds.thawEnd = thawEnd;
        emit Released(account, thawEnd);
    }

    function freeze(bytes32 account) external {
        Account storage record = _onlyPayerOrGuardian(account);
        bool byPayer = msg.sender == record.payer;
        uint40 last = byPayer ? record.payerFrozeUntil : record.guardianFrozeUntil;
        if (last != 0) {
            // A day more than a thaw, so that a thaw begun in the freeze can be withdrawn before the next one.
            uint256 next = uint256(last) + THAW + 1 days;
            require(block.timestamp >= next, TooEarly(next));
        }
        uint40 frozenUntil = uint40(block.timestamp) + FREEZE;
        if (byPayer) record.payerFrozeUntil = frozenUntil;
        else record.guardianFrozeUntil = frozenUntil;
        record.bounds.frozenUntil = frozenUntil;
        // Whoever leaves or lowers does so in time in which the settler can post: a freeze starts that anew.
        record.bounds.thawing = 0;
        delete record.change;
        emit Frozen(account, msg.sender, frozenUntil);
    }

    /// A whole THAW in which the account isn't frozen.
    function _afterThaw(Account storage record) private view returns (uint40) {
        uint40 frozenUntil = record.bounds.frozenUntil;
        return (block.timestamp < frozenUntil ? frozenUntil : uint40(block.timestamp)) + THAW;
    }
}
