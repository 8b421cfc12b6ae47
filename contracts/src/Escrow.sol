// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";

/// @title Escrow
/// @notice See IEscrow. One contract a token; no owner, no proxy, no pause.
contract Escrow is IEscrow, EIP712, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// The token that all amounts are in.
    IERC20 public immutable TOKEN;
    /// Seconds from the credit of a row until it may be collected.
    uint40 public immutable WINDOW;
    /// Seconds from the call of thaw until the money may leave.
    uint40 public immutable THAW;

    /// Seconds until another address is paid to: the owner's time to see that its key was stolen.
    uint40 public constant PAY_TO_DELAY = 7 days;
    /// keccak256("Row(bytes32 account,uint32 payee,uint72 total)")
    bytes32 public constant ROW_TYPEHASH = keccak256("Row(bytes32 account,uint32 payee,uint72 total)");
    bytes32 private constant ACCOUNT_TAG = keccak256("supercargo.account.v1");

    uint256 private constant ROW_BYTES = 13;
    /// One bit of `Posted.skipped` each.
    uint256 private constant MAX_ROWS = 256;

    // One slot.
    struct Funds {
        uint72 balance;
        uint72 thawing;
        uint40 thawEnd;
        uint32 settler;
    }

    // One slot: the allowance, and a bucket that fills by `rate` a second up to `burst`.
    struct Bucket {
        uint72 allowance;
        uint72 level;
        uint32 levelAt;
        uint40 burst;
        uint40 rate;
    }

    // One slot. `mature` is what had matured when the lane was last credited; the rest of `posted` matures a window after
    // `since`.
    struct Lane {
        uint72 posted;
        uint72 mature;
        uint72 withdrawn;
        uint40 since;
    }

    struct Settler {
        address hot;
        address cold;
    }

    struct Payee {
        address owner;
        address payTo;
        uint40 changeAt;
        address next;
    }

    mapping(bytes32 account => Funds) private _funds;
    mapping(bytes32 account => Bucket) private _buckets;
    mapping(bytes32 account => address) private _payers;
    mapping(bytes32 account => bytes32) private _tenants;
    mapping(bytes32 account => mapping(uint32 payee => Lane)) private _lanes;
    Settler[] private _settlers;
    Payee[] private _payees;

    /// @param window Seconds in which a credited row can't be collected yet.
    /// @param thaw_ Seconds that leaving takes. Longer than the window, so that no row can be left unpaid by leaving.
    constructor(IERC20 token, uint40 window, uint40 thaw_) EIP712("Supercargo Escrow", "1") {
        require(address(token) != address(0), ZeroAddress());
        require(thaw_ > window, TooEarly(thaw_));
        TOKEN = token;
        WINDOW = window;
        THAW = thaw_;
        // Number 0 is nobody, so that a forgotten number never means somebody.
        _settlers.push();
        _payees.push();
    }

    // --- The payer ---

    function open(bytes32 salt, Limits calldata limits) external returns (bytes32 account) {
        account = accountId(msg.sender, salt);
        require(_payers[account] == address(0), AlreadyOpen(account));
        require(limits.settler != 0 && limits.settler < _settlers.length, UnknownSettler(limits.settler));
        _payers[account] = msg.sender;
        _funds[account].settler = limits.settler;
        _buckets[account] =
            Bucket(limits.allowance, limits.burst, uint32(block.timestamp), limits.burst, limits.rate);
        emit Opened(account, msg.sender, salt);
        emit LimitsRaised(account, limits.allowance, limits.burst, limits.rate);
    }

    function bind(bytes32 account, bytes32 tenant) external {
        _onlyPayer(account);
        require(_tenants[account] == 0, AlreadyBound(account, _tenants[account]));
        _tenants[account] = tenant;
        emit Bound(account, tenant);
    }

    function deposit(bytes32 account, uint256 amount) public nonReentrant {
        require(_payers[account] != address(0), UnknownAccount(account));
        require(amount != 0, ZeroAmount());
        uint256 balance = _funds[account].balance + amount;
        require(balance <= type(uint72).max, AmountTooLarge(amount));
        _funds[account].balance = uint72(balance);
        emit Deposited(account, msg.sender, amount, balance);
        // Only ever from the sender: nobody's approval can be spent by somebody else.
        uint256 before = TOKEN.balanceOf(address(this));
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        uint256 arrived = TOKEN.balanceOf(address(this)) - before;
        require(arrived == amount, ShortTransfer(amount, arrived));
    }

    function depositWithPermit(bytes32 account, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external {
        // Somebody may have sent the permit ahead of us: then the approval is there, and the transfer decides.
        try IERC20Permit(address(TOKEN)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        deposit(account, amount);
    }

    function raise(bytes32 account, uint72 allowance, uint40 burst, uint40 rate) external {
        _onlyPayer(account);
        Bucket memory bucket = _filled(_buckets[account]);
        require(allowance >= bucket.allowance, OnlyRaises(bucket.allowance, allowance));
        require(burst >= bucket.burst, OnlyRaises(bucket.burst, burst));
        require(rate >= bucket.rate, OnlyRaises(bucket.rate, rate));
        (bucket.allowance, bucket.burst, bucket.rate) = (allowance, burst, rate);
        _buckets[account] = bucket;
        emit LimitsRaised(account, allowance, burst, rate);
    }

    function thaw(bytes32 account, uint72 amount) external {
        _onlyPayer(account);
        Funds storage funds = _funds[account];
        require(amount != 0, ZeroAmount());
        require(amount <= funds.balance, BalanceTooLow(account, amount, funds.balance));
        // A new call replaces the old one and starts its time again: two calls never add up to a shorter way out.
        funds.thawing = amount;
        funds.thawEnd = uint40(block.timestamp) + THAW;
        emit Thawing(account, amount, funds.thawEnd);
    }

    function withdraw(bytes32 account) external nonReentrant {
        _onlyPayer(account);
        Funds storage funds = _funds[account];
        require(funds.thawing != 0, NothingThaws(account));
        require(block.timestamp >= funds.thawEnd, StillThawing(account, funds.thawEnd));
        uint72 amount = funds.thawing < funds.balance ? funds.thawing : funds.balance;
        funds.balance -= amount;
        funds.thawing = 0;
        emit Withdrawn(account, amount, funds.balance);
        TOKEN.safeTransfer(msg.sender, amount);
    }

    // --- The settler ---

    function enroll(address hot) external returns (uint32 settler) {
        require(hot != address(0), ZeroAddress());
        settler = uint32(_settlers.length);
        _settlers.push(Settler(hot, msg.sender));
        emit Enrolled(settler, hot, msg.sender);
    }

    function post(bytes32 account, bytes calldata rows, bytes32 linesRoot, bytes32 journalHead)
        external
        returns (uint256 credited)
    {
        uint32 settler = _funds[account].settler;
        require(settler != 0, UnknownAccount(account));
        require(msg.sender == _settlers[settler].hot, NotSettler(settler, msg.sender));
        require(rows.length % ROW_BYTES == 0 && rows.length != 0, MalformedRows(rows.length));
        uint256 count = rows.length / ROW_BYTES;
        require(count <= MAX_ROWS, TooManyRows(count));
        uint256 skipped;
        for (uint256 n; n < count; ++n) {
            // A row is 13 bytes at the head of a word: 4 of payee, 9 of total.
            uint256 word;
            assembly {
                word := calldataload(add(rows.offset, mul(n, ROW_BYTES)))
            }
            (bool open_, uint72 credit) = _credit(account, uint32(word >> 224), uint72(word >> 152));
            if (open_) skipped |= 1 << n;
            credited += credit;
        }
        _spend(account, credited);
        emit Posted(account, settler, credited, skipped, linesRoot, journalHead);
    }

    // --- The payee ---

    function register(address payTo) external returns (uint32 payee) {
        require(payTo != address(0), ZeroAddress());
        payee = uint32(_payees.length);
        _payees.push(Payee(msg.sender, payTo, 0, address(0)));
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

    function claim(bytes32 account, uint32 payee, uint72 total, bytes calldata signature)
        external
        returns (uint256 credited)
    {
        uint32 settler = _funds[account].settler;
        require(settler != 0, UnknownAccount(account));
        address signer = ECDSA.recover(rowDigest(account, payee, total), signature);
        require(signer == _settlers[settler].hot, NotSigned(settler, signer));
        (bool open_, uint72 credit) = _credit(account, payee, total);
        require(!open_, WindowOpen(account, payee, _lanes[account][payee].since + WINDOW));
        credited = credit;
        _spend(account, credited);
        emit Claimed(account, payee, credited, total);
    }

    function collect(uint32 payee, bytes32[] calldata accounts) external nonReentrant returns (uint256 amount) {
        address payTo = _payTo(_payee(payee));
        for (uint256 n; n < accounts.length; ++n) {
            Lane storage lane = _lanes[accounts[n]][payee];
            Lane memory read = lane;
            uint72 mature = _mature(read);
            amount += mature - read.withdrawn;
            // What matured is written with what is withdrawn: one store a lane.
            read.mature = mature;
            read.withdrawn = mature;
            _lanes[accounts[n]][payee] = read;
        }
        require(amount != 0, NothingToCollect(payee));
        emit Collected(payee, payTo, amount);
        TOKEN.safeTransfer(payTo, amount);
    }

    // --- Anybody ---

    function accountId(address payer, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(ACCOUNT_TAG, block.chainid, address(this), payer, salt));
    }

    function viewAccount(bytes32 account) external view returns (AccountView memory) {
        Funds memory funds = _funds[account];
        Bucket memory bucket = _filled(_buckets[account]);
        uint72 spendable = bucket.allowance < bucket.level ? bucket.allowance : bucket.level;
        if (funds.balance < spendable) spendable = funds.balance;
        return AccountView(
            _payers[account],
            _tenants[account],
            funds.balance,
            funds.thawing,
            funds.thawEnd,
            spendable,
            Limits(bucket.allowance, bucket.burst, bucket.rate, funds.settler)
        );
    }

    function viewLane(bytes32 account, uint32 payee) external view returns (LaneView memory) {
        Lane memory lane = _lanes[account][payee];
        return LaneView(lane.posted, _mature(lane), lane.withdrawn, lane.since + WINDOW);
    }

    function viewSettler(uint32 settler) external view returns (address hot, address cold) {
        require(settler < _settlers.length, UnknownSettler(settler));
        return (_settlers[settler].hot, _settlers[settler].cold);
    }

    function viewPayee(uint32 payee) external view returns (address owner, address payTo, uint256 changeAt, address next) {
        Payee storage record = _payee(payee);
        return (record.owner, _payTo(record), record.changeAt, record.next);
    }

    function rowDigest(bytes32 account, uint32 payee, uint72 total) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(ROW_TYPEHASH, account, payee, total)));
    }

    // --- Inside ---

    /// Raises a lane to `total`. A lower or equal total credits nothing: it was credited before. While the lane's last
    /// credit is in its window, a higher one has to wait, so that there is one thing at a time to look into.
    function _credit(bytes32 account, uint32 payee, uint72 total) private returns (bool open_, uint72 credit) {
        require(payee != 0 && payee < _payees.length, UnknownPayee(payee));
        Lane memory lane = _lanes[account][payee];
        if (total <= lane.posted) return (false, 0);
        uint72 mature = _mature(lane);
        if (mature < lane.posted) return (true, 0);
        credit = total - lane.posted;
        _lanes[account][payee] = Lane(total, mature, lane.withdrawn, uint40(block.timestamp));
    }

    /// Takes a credit out of the account, within everything that its payer allows.
    function _spend(bytes32 account, uint256 amount) private {
        if (amount == 0) return;
        Funds storage funds = _funds[account];
        uint72 balance = funds.balance;
        require(amount <= balance, BalanceTooLow(account, amount, balance));
        Bucket memory bucket = _filled(_buckets[account]);
        require(amount <= bucket.allowance, AllowanceExceeded(account, amount, bucket.allowance));
        require(amount <= bucket.level, RateExceeded(account, amount, bucket.level));
        // Both fit: amount is at most a 72-bit balance.
        bucket.allowance -= uint72(amount);
        bucket.level -= uint72(amount);
        _buckets[account] = bucket;
        funds.balance = balance - uint72(amount);
    }

    function _filled(Bucket memory bucket) private view returns (Bucket memory) {
        uint256 level = bucket.level + uint256(bucket.rate) * (block.timestamp - bucket.levelAt);
        bucket.level = level < bucket.burst ? uint72(level) : bucket.burst;
        bucket.levelAt = uint32(block.timestamp);
        return bucket;
    }

    function _mature(Lane memory lane) private view returns (uint72) {
        return block.timestamp >= lane.since + WINDOW ? lane.posted : lane.mature;
    }

    function _payTo(Payee storage record) private view returns (address) {
        return record.next != address(0) && block.timestamp >= record.changeAt ? record.next : record.payTo;
    }

    function _payee(uint32 payee) private view returns (Payee storage) {
        require(payee != 0 && payee < _payees.length, UnknownPayee(payee));
        return _payees[payee];
    }

    function _onlyPayer(bytes32 account) private view {
        address payer = _payers[account];
        require(payer != address(0), UnknownAccount(account));
        require(msg.sender == payer, NotPayer(account, msg.sender));
    }
}
