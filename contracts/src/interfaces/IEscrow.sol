// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Escrow: accounts that pay through lanes
/// @notice A lane is what one account owes one payee, as a total that only rises. A row says "this payee's total is X";
/// the contract credits X minus what the lane already has. Rows posted by the settler and rows signed by the settler and
/// claimed by anybody are the same thing, so repeating, reordering or withholding them never pays twice.
/// All amounts are in the token's base units and fit in 72 bits.
interface IEscrow {
    /// @notice What an account's payer allows to leave it, whatever the settler signs.
    struct Limits {
        /// How much more may be credited in all.
        uint72 allowance;
        /// How much may be credited at once.
        uint40 burst;
        /// How fast the burst refills, a second.
        uint40 rate;
        /// Who may post and sign rows.
        uint32 settler;
    }

    /// @notice An account as it stands. `spendable` is what could be credited now.
    struct AccountView {
        address payer;
        bytes32 tenant;
        uint72 balance;
        uint72 thawing;
        uint40 thawEnd;
        uint72 spendable;
        Limits limits;
    }

    /// @notice A lane as it stands. `mature` counts what may be collected or was.
    struct LaneView {
        uint72 posted;
        uint72 mature;
        uint72 withdrawn;
        uint40 maturesAt;
    }

    event Opened(bytes32 indexed account, address indexed payer, bytes32 salt);
    event Bound(bytes32 indexed account, bytes32 indexed tenant);
    event Deposited(bytes32 indexed account, address indexed from, uint256 amount, uint256 balance);
    event LimitsRaised(bytes32 indexed account, uint256 allowance, uint256 burst, uint256 rate);
    event Thawing(bytes32 indexed account, uint256 amount, uint256 thawEnd);
    event Withdrawn(bytes32 indexed account, uint256 amount, uint256 balance);
    event Enrolled(uint32 indexed settler, address hot, address cold);
    event Registered(uint32 indexed payee, address owner, address payTo);
    event PayToScheduled(uint32 indexed payee, address payTo, uint256 changeAt);
    /// @notice One a transaction. Row number n was skipped when bit n of `skipped` is set: its lane's window is open.
    event Posted(
        bytes32 indexed account, uint32 indexed settler, uint256 credited, uint256 skipped, bytes32 linesRoot, bytes32 journalHead
    );
    event Claimed(bytes32 indexed account, uint32 indexed payee, uint256 credited, uint256 total);
    event Collected(uint32 indexed payee, address payTo, uint256 amount);

    error UnknownAccount(bytes32 account);
    error UnknownPayee(uint32 payee);
    error UnknownSettler(uint32 settler);
    error AlreadyOpen(bytes32 account);
    error NotPayer(bytes32 account, address caller);
    error NotOwner(uint32 payee, address caller);
    error NotSettler(uint32 settler, address caller);
    error NotSigned(uint32 settler, address signer);
    error AlreadyBound(bytes32 account, bytes32 tenant);
    error ZeroAddress();
    error ZeroAmount();
    error AmountTooLarge(uint256 amount);
    error ShortTransfer(uint256 expected, uint256 arrived);
    error BalanceTooLow(bytes32 account, uint256 wanted, uint256 balance);
    error RateExceeded(bytes32 account, uint256 wanted, uint256 available);
    error AllowanceExceeded(bytes32 account, uint256 wanted, uint256 allowance);
    error OnlyRaises(uint256 have, uint256 wanted);
    error StillThawing(bytes32 account, uint256 thawEnd);
    error NothingThaws(bytes32 account);
    error NothingToCollect(uint32 payee);
    error MalformedRows(uint256 length);
    error TooManyRows(uint256 rows);
    error WindowOpen(bytes32 account, uint32 payee, uint256 maturesAt);
    error TooEarly(uint256 changeAt);

    // --- The payer ---

    /// @notice Opens the account that (chain, contract, sender, salt) name, without money.
    function open(bytes32 salt, Limits calldata limits) external returns (bytes32 account);
    /// @notice Names the one escrow object whose work this account pays. Once, for ever.
    function bind(bytes32 account, bytes32 tenant) external;
    /// @notice Adds the sender's money to an account. A token that delivers less than asked is refused.
    function deposit(bytes32 account, uint256 amount) external;
    /// @notice As deposit, with a permit first; a permit that was used already is no error.
    function depositWithPermit(bytes32 account, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;
    /// @notice Raises limits at once. Nothing can be lowered this way.
    function raise(bytes32 account, uint72 allowance, uint40 burst, uint40 rate) external;
    /// @notice Starts the way out for `amount`. It can be credited to payees until it is withdrawn.
    function thaw(bytes32 account, uint72 amount) external;
    /// @notice Pays thawed money back to the payer: as much of it as rows have left.
    function withdraw(bytes32 account) external;

    // --- The settler ---

    /// @notice Enrolls the sender as the cold key of a new settler whose hot key is `hot`.
    function enroll(address hot) external returns (uint32 settler);
    /// @notice Credits rows (4 bytes payee, 9 bytes total, each) of one account.
    function post(bytes32 account, bytes calldata rows, bytes32 linesRoot, bytes32 journalHead) external returns (uint256 credited);

    // --- The payee ---

    /// @notice Registers the sender as the owner of a new payee that is paid to `payTo`.
    function register(address payTo) external returns (uint32 payee);
    /// @notice Schedules another address to be paid to; the owner may schedule again, also back, until it applies.
    function setPayTo(uint32 payee, address payTo) external;
    /// @notice Credits one row that the account's settler signed. Anybody may bring it.
    function claim(bytes32 account, uint32 payee, uint72 total, bytes calldata signature) external returns (uint256 credited);
    /// @notice Pays what is mature in these accounts' lanes to the payee's address. Anybody may call it.
    function collect(uint32 payee, bytes32[] calldata accounts) external returns (uint256 amount);

    // --- Anybody ---

    function accountId(address payer, bytes32 salt) external view returns (bytes32);
    function viewAccount(bytes32 account) external view returns (AccountView memory);
    function viewLane(bytes32 account, uint32 payee) external view returns (LaneView memory);
    function viewSettler(uint32 settler) external view returns (address hot, address cold);
    function viewPayee(uint32 payee) external view returns (address owner, address payTo, uint256 changeAt, address next);
    function rowDigest(bytes32 account, uint32 payee, uint72 total) external view returns (bytes32);
}
