// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";

/// @title Store: what the contract remembers, and the arithmetic of accounts and lanes that its other parts share
abstract contract Store is IEscrow, EIP712, ReentrancyGuardTransient {
    /// The token that all amounts are in.
    IERC20 public immutable TOKEN;
    /// Seconds from the credit of a row until it may be collected.
    uint40 public immutable WINDOW;
    /// Seconds that leaving takes, and that a lowering of limits waits.
    uint40 public immutable THAW;
    /// Seconds until a case that nobody resolved lapses to the payee.
    uint40 public immutable CASE;
    /// What a dispute costs its account.
    uint72 public immutable CASE_FEE;
    /// Who resolves cases.
    address public immutable ARBITER;

    /// How long a freeze lasts.
    uint40 public constant FREEZE = 3 days;
    /// How long a halt lasts.
    uint40 public constant HALT = 12 hours;
    /// What a thaw allows for beside window and halt: two days of outage, and an hour of finality.
    uint40 public constant OUTAGE = 48 hours + 1 hours;
    /// What a thaw becomes when the settler releases it.
    uint40 public constant RELEASED_THAW = 1 hours;
    /// How long the signatures of a hot key stay good after it was rotated.
    uint40 public constant KEY_OVERLAP = 7 days;
    /// Seconds until another address is paid to: the owner's time to see that its key was stolen.
    uint40 public constant PAY_TO_DELAY = 7 days;
    /// What EIP-712 calls a row.
    bytes32 internal constant ROW_TYPEHASH = keccak256("Row(bytes32 account,uint32 payee,uint72 total)");
    /// What EIP-712 calls a release.
    bytes32 internal constant RELEASE_TYPEHASH = keccak256("Release(bytes32 account,uint72 amount,uint40 thawEnd)");
    bytes32 private constant ACCOUNT_TAG = keccak256("supercargo.account.v1");

    uint256 internal constant ROW_BYTES = 13;
    uint256 private constant POSTED_FIELD = type(uint72).max;
    uint256 private constant WITHDRAWN_FIELD = uint256(type(uint72).max) << 144;
    uint256 private constant SINCE_FIELD = uint256(type(uint40).max) << 216;

    // One slot: all that crediting writes. `level` is of a bucket that fills by `rate` a second up to `burst`.
    struct Funds {
        uint72 balance;
        uint72 allowance;
        uint40 level;
        uint40 levelAt;
        uint32 settler;
    }

    // One slot: what crediting only reads.
    struct Bounds {
        uint40 burst;
        uint40 rate;
        uint40 frozenUntil;
        uint40 thawEnd;
        uint72 thawing;
    }

    // One slot.
    struct Change {
        uint72 allowance;
        uint40 burst;
        uint40 rate;
        uint32 settler;
        uint40 applyAt;
    }

    // The first two slots are all that crediting touches.
    struct Account {
        Funds funds;
        Bounds bounds;
        address payer;
        // What came in, less what went out otherwise than by a credit: what of it isn't the balance was credited.
        uint96 funded;
        bytes32 tenant;
        Change change;
        address guardian;
        address nextGuardian;
        uint40 guardianAt;
        // When the last freeze by either ended or ends: one's freeze uses up nothing of the other's.
        uint40 payerFrozeUntil;
        uint40 guardianFrozeUntil;
    }

    // One slot. `mature` is what had matured when the lane was last written; the rest of `posted` matures a window after
    // `since`. A dispute moves `since` to where a window later is the end of its case: a case lapses by time alone.
    struct Lane {
        uint72 posted;
        uint72 mature;
        uint72 withdrawn;
        uint40 since;
    }

    // One slot: of a lane, what its credits never ask. `fees` and `returned` are of all its cases, and of refunds.
    struct Case {
        uint40 lapsesAt;
        uint72 fees;
        uint72 returned;
    }

    // All that a post asks is in the first slot.
    struct Settler {
        address hot;
        uint40 haltedUntil;
        uint40 previousUntil;
        address previous;
        address cold;
    }

    // All that collecting asks is in the first slot, unless another address is scheduled.
    struct Payee {
        address payTo;
        uint40 changeAt;
        address owner;
        address next;
    }

    mapping(bytes32 account => Account) internal _accounts;
    mapping(bytes32 account => mapping(uint32 payee => Lane)) internal _lanes;
    mapping(bytes32 account => mapping(uint32 payee => Case)) internal _cases;
    mapping(uint32 number => Settler) internal _settlers;
    mapping(uint32 number => Payee) internal _payees;
    // Number 0 is nobody, so that a forgotten number never means somebody.
    uint32 internal _lastSettler;
    uint32 internal _lastPayee;
    uint256 internal _caseFees;

    function accountId(address payer, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(ACCOUNT_TAG, block.chainid, address(this), payer, salt));
    }

    function rowDigest(bytes32 account, uint32 payee, uint72 total) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(ROW_TYPEHASH, account, payee, total)));
    }

    function releaseDigest(bytes32 account, uint72 amount, uint40 thawEnd) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(RELEASE_TYPEHASH, account, amount, thawEnd)));
    }

    /// Raises a lane to `total`. A lower or equal total credits nothing: it was credited before. While the lane's last
    /// credit is in its window, a higher one has to wait, so that there is one thing at a time to look into. A case takes
    /// what comes in: a lane is never closed for longer than a window, or a payer could leave behind a dispute.
    function _credit(mapping(uint32 => Lane) storage lanes, uint32 payee, uint256 total)
        internal
        returns (bool held, uint256 credit)
    {
        // Every row of a post comes through here, so it works on the slot's word: `posted` is the lowest field, `since` the
        // highest.
        Lane storage lane = lanes[payee];
        uint256 word = _word(lane);
        uint256 posted = uint72(word);
        // A lane that was credited before belongs to a payee that is known.
        if (posted == 0) require(payee != 0 && payee <= _lastPayee, UnknownPayee(payee));
        if (total <= posted) return (false, 0);
        uint256 kept = (word & WITHDRAWN_FIELD) | posted << 72 | block.timestamp << 216;
        unchecked {
            // No sum of 40 bits overflows, and the total is greater.
            if (uint72(word >> 72) < posted) {
                // Only a case's `since` lies ahead, until a window before it lapses.
                uint256 since = word >> 216;
                if (block.timestamp < since) kept = word & ~POSTED_FIELD;
                else if (block.timestamp < since + WINDOW) return (true, 0);
            }
            credit = total - posted;
        }
        word = kept | total;
        assembly ("memory-safe") {
            sstore(lane.slot, word)
        }
    }

    /// Counts all that has matured in a lane as withdrawn, and says how much of it was not before.
    function _withdrawMature(Lane storage lane) internal returns (uint256 part) {
        uint256 word = _word(lane);
        uint256 mature;
        unchecked {
            mature = block.timestamp >= (word >> 216) + WINDOW ? uint72(word) : uint72(word >> 72);
            // Nothing is withdrawn that is not mature.
            part = mature - uint72(word >> 144);
        }
        // What matured is written with what is withdrawn: one store a lane.
        word = (word & (POSTED_FIELD | SINCE_FIELD)) | mature << 72 | mature << 144;
        assembly ("memory-safe") {
            sstore(lane.slot, word)
        }
    }

    /// Takes a credit out of the account, within everything that its payer allows.
    function _spend(bytes32 account, uint256 amount) internal {
        if (amount == 0) return;
        Account storage record = _accounts[account];
        Funds memory funds = record.funds;
        require(amount <= funds.balance, BalanceTooLow(account, amount, funds.balance));
        require(amount <= funds.allowance, AllowanceExceeded(account, amount, funds.allowance));
        _fill(funds, record.bounds);
        require(amount <= funds.level, RateExceeded(account, amount, funds.level));
        unchecked {
            // Nothing falls below zero, and the amount is at most the level, of 40 bits.
            funds.balance -= uint72(amount);
            funds.allowance -= uint72(amount);
            funds.level -= uint40(amount);
        }
        _write(record.funds, funds);
    }

    /// Gives an account back what was credited from it to a payee, and ends the lane's case if it is over.
    function _giveBack(bytes32 account, uint32 payee, uint72 amount, bool over) internal {
        Account storage record = _accounts[account];
        record.funds.balance += amount;
        record.funded += amount;
        Case storage case_ = _cases[account][payee];
        case_.returned += amount;
        if (over) case_.lapsesAt = 0;
    }

    /// The settler that may credit this account now.
    function _settlerNow(bytes32 account) internal view returns (uint32 number, Settler storage settler) {
        Account storage record = _accounts[account];
        number = record.funds.settler;
        require(number != 0, UnknownAccount(account));
        uint40 frozenUntil = record.bounds.frozenUntil;
        require(block.timestamp >= frozenUntil, AccountFrozen(account, frozenUntil));
        settler = _settlers[number];
        uint40 haltedUntil = settler.haltedUntil;
        require(block.timestamp >= haltedUntil, SettlerHalted(number, haltedUntil));
    }

    function _requireSigned(uint32 number, Settler storage settler, bytes32 digest, bytes calldata signature)
        internal
        view
    {
        address signer = ECDSA.recover(digest, signature);
        if (signer == settler.hot) return;
        require(signer == settler.previous && block.timestamp < settler.previousUntil, NotSigned(number, signer));
    }

    // A slot is written at once: left to itself, the compiler writes one field after the other.

    function _word(Lane storage at) private view returns (uint256 word) {
        assembly ("memory-safe") {
            word := sload(at.slot)
        }
    }

    function _write(Lane storage at, Lane memory lane) internal {
        uint256 word = lane.posted | uint256(lane.mature) << 72 | uint256(lane.withdrawn) << 144;
        word |= uint256(lane.since) << 216;
        assembly ("memory-safe") {
            sstore(at.slot, word)
        }
    }

    function _write(Funds storage at, Funds memory funds) internal {
        uint256 word = funds.balance | uint256(funds.allowance) << 72 | uint256(funds.level) << 144;
        word |= uint256(funds.levelAt) << 184 | uint256(funds.settler) << 224;
        assembly ("memory-safe") {
            sstore(at.slot, word)
        }
    }

    /// A row is 13 bytes at the head of a word: 4 of payee, 9 of total.
    function _rowAt(bytes calldata rows, uint256 n) internal pure returns (uint32 payee, uint72 total) {
        uint256 word;
        assembly {
            word := calldataload(add(rows.offset, mul(n, ROW_BYTES)))
        }
        return (uint32(word >> 224), uint72(word >> 152));
    }

    function _countRows(bytes calldata rows) internal pure returns (uint256 count) {
        require(rows.length % ROW_BYTES == 0 && rows.length != 0, MalformedRows(rows.length));
        count = rows.length / ROW_BYTES;
    }

    /// Sets the bit of row `n`; the first one makes room for all `count` of them.
    function _marked(bytes memory bits, uint256 n, uint256 count) internal pure returns (bytes memory marked) {
        marked = bits.length == 0 ? new bytes((count + 7) / 8) : bits;
        marked[n >> 3] |= bytes1(uint8(1 << (n & 7)));
    }

    /// Brings the level to what it is now.
    function _fill(Funds memory funds, Bounds storage bounds) internal view {
        unchecked {
            // Times and rates have 40 bits.
            uint256 level = funds.level + uint256(bounds.rate) * (block.timestamp - funds.levelAt);
            uint40 burst = bounds.burst;
            funds.level = level < burst ? uint40(level) : burst;
        }
        funds.levelAt = uint40(block.timestamp);
    }

    function _mature(Lane memory lane) internal view returns (uint72) {
        return block.timestamp >= lane.since + WINDOW ? lane.posted : lane.mature;
    }

    function _payTo(Payee storage record) internal view returns (address) {
        uint40 changeAt = record.changeAt;
        return changeAt != 0 && block.timestamp >= changeAt ? record.next : record.payTo;
    }

    function _payee(uint32 payee) internal view returns (Payee storage record) {
        record = _payees[payee];
        require(record.payTo != address(0), UnknownPayee(payee));
    }

    function _guardian(Account storage record) internal view returns (address) {
        return record.guardianAt != 0 && block.timestamp >= record.guardianAt ? record.nextGuardian : record.guardian;
    }

    function _onlyPayer(bytes32 account) internal view returns (Account storage record) {
        record = _accounts[account];
        require(record.payer != address(0), UnknownAccount(account));
        require(msg.sender == record.payer, NotPayer(account, msg.sender));
    }

    function _onlyPayerOrGuardian(bytes32 account) internal view returns (Account storage record) {
        record = _accounts[account];
        require(record.payer != address(0), UnknownAccount(account));
        require(msg.sender == record.payer || msg.sender == _guardian(record), NotGuardian(account, msg.sender));
    }
}
