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
        address guardian;
        /// Until then nothing is credited from it.
        uint40 frozenUntil;
        /// What was ever credited from it, to all payees.
        uint96 credited;
    }

    /// @notice A change that waits for its time.
    struct ChangeView {
        Limits limits;
        uint40 applyAt;
        address nextGuardian;
        uint40 guardianAt;
    }

    /// @notice A lane as it stands. `mature` counts what may be collected or was.
    struct LaneView {
        uint72 posted;
        uint72 mature;
        uint72 withdrawn;
        uint40 maturesAt;
        /// When an open case lapses to the payee; zero when there is none.
        uint40 disputedUntil;
        /// What its account paid for all its cases.
        uint72 caseFees;
        /// What went back to its account, by cuts and refunds. It counts as withdrawn.
        uint72 returned;
    }

    /// @notice A settler's keys as they stand.
    struct SettlerView {
        address hot;
        address cold;
        uint40 haltedUntil;
        /// The hot key before, whose signatures are still good until `previousUntil`.
        address previous;
        uint40 previousUntil;
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
    /// @notice One a transaction. Row number n was skipped, because its lane's window is open, when bit n % 8 (the lowest
    /// first) of byte n / 8 of `skipped` is set; there are no bytes when none was.
    event Posted(
        bytes32 indexed account,
        uint32 indexed settler,
        uint256 credited,
        bytes skipped,
        bytes32 linesRoot,
        bytes32 journalHead
    );
    event Claimed(bytes32 indexed account, uint32 indexed payee, uint256 credited, uint256 total);
    /// @notice As Posted, of rows that a payee or anybody brought with the settler's signatures.
    event ClaimedMany(bytes32 indexed account, uint256 credited, bytes skipped);
    /// @notice The token's own Transfer says to which address.
    event Collected(uint32 indexed payee, uint256 amount);
    event Refunded(bytes32 indexed account, uint32 indexed payee, uint256 amount);
    event GuardianAppointed(bytes32 indexed account, address guardian, uint256 from);
    event Frozen(bytes32 indexed account, address by, uint256 until);
    event ChangeScheduled(
        bytes32 indexed account, uint256 allowance, uint256 burst, uint256 rate, uint32 settler, uint256 applyAt
    );
    event ChangeApplied(bytes32 indexed account, uint256 allowance, uint256 burst, uint256 rate, uint32 settler);
    event Released(bytes32 indexed account, uint256 thawEnd);
    event Disputed(bytes32 indexed account, uint32 indexed payee, address by, uint256 amount, uint256 lapsesAt);
    event Resolved(bytes32 indexed account, uint32 indexed payee, uint256 cut, uint256 rest);
    event CaseFeesCollected(uint256 amount);
    event Rotated(uint32 indexed settler, address hot, bool compromised);
    event Halted(uint32 indexed settler, uint256 until);

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
    error WindowOpen(bytes32 account, uint32 payee, uint256 maturesAt);
    error TooEarly(uint256 changeAt);
    error ThawTooShort(uint256 thaw, uint256 least);
    error CaseTooShort(uint256 case_, uint256 window);
    error NotGuardian(bytes32 account, address caller);
    error NotArbiter(address caller);
    error NotCold(uint32 settler, address caller);
    error AccountFrozen(bytes32 account, uint256 until);
    error SettlerHalted(uint32 settler, uint256 until);
    error NothingScheduled(bytes32 account);
    error NothingToDispute(bytes32 account, uint32 payee);
    error AlreadyDisputed(bytes32 account, uint32 payee, uint256 lapsesAt);
    error NotDisputed(bytes32 account, uint32 payee);
    error CutTooLarge(uint256 cut, uint256 disputed);
    error MalformedSignatures(uint256 length, uint256 expected);

    // --- The payer ---

    /// @notice Opens the account that (chain, contract, sender, salt) name, without money. Binds it unless `tenant` is
    /// zero, and appoints a guardian unless `guardian` is.
    function open(bytes32 salt, bytes32 tenant, address guardian, Limits calldata limits)
        external
        returns (bytes32 account);
    /// @notice Appoints the guardian, who may freeze and dispute: the first at once, another after THAW.
    function appoint(bytes32 account, address guardian) external;
    /// @notice Names the one escrow object whose work this account pays. Once, for ever.
    function bind(bytes32 account, bytes32 tenant) external;
    /// @notice Adds the sender's money to an account. A token that delivers less than asked is refused.
    function deposit(bytes32 account, uint256 amount) external;
    /// @notice As deposit, with a permit first; a permit that was used already is no error.
    function depositWithPermit(bytes32 account, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external;
    /// @notice Raises limits at once. Nothing can be lowered this way.
    function raise(bytes32 account, uint72 allowance, uint40 burst, uint40 rate) external;
    /// @notice Schedules other limits or another settler for THAW later, replacing what was scheduled.
    function schedule(bytes32 account, Limits calldata limits) external;
    /// @notice Applies what was scheduled when its time has come: it lowers, and changes the settler, but never raises.
    /// Anybody may call it, so that a lowering can't be kept as a threat.
    function applyChange(bytes32 account) external;
    /// @notice Starts the way out for `amount`. It can be credited to payees until it is withdrawn.
    function thaw(bytes32 account, uint72 amount) external;
    /// @notice Pays thawed money back to the payer: as much of it as rows have left.
    function withdraw(bytes32 account) external;
    /// @notice Shortens a thaw to an hour from now, with the settler's signature for exactly this thaw.
    function release(bytes32 account, bytes calldata signature) external;
    /// @notice Stops crediting for FREEZE and cancels a thaw and a scheduled change. By the payer or its guardian; by each
    /// again only a THAW and a day after its own last freeze ended, so that nobody is frozen for ever.
    function freeze(bytes32 account) external;
    /// @notice Holds what has not matured in a lane until the arbiter resolves or CASE has passed, when it matures, and with
    /// it what is credited to the lane until a window before that. By the payer or its guardian, once for each credit, for CASE_FEE from the account, which the arbiter keeps however it ends.
    function dispute(bytes32 account, uint32 payee) external;

    // --- The settler ---

    /// @notice Enrolls the sender as the cold key of a new settler whose hot key is `hot`.
    function enroll(address hot) external returns (uint32 settler);
    /// @notice Another hot key, by the cold one. Signatures of the one before stay good for seven days, in which there is
    /// no further rotation, unless it was compromised: then they are void at once.
    function rotate(uint32 settler, address hot, bool compromised) external;
    /// @notice Stops posts and claims for HALT, by the cold key; again only a THAW after the last halt ended.
    function halt(uint32 settler) external;
    /// @notice Credits rows (4 bytes payee, 9 bytes total, each) of one account: as many as fit a transaction's gas.
    function post(bytes32 account, bytes calldata rows, bytes32 linesRoot, bytes32 journalHead)
        external
        returns (uint256 credited);

    // --- The payee ---

    /// @notice Registers the sender as the owner of a new payee that is paid to `payTo`.
    function register(address payTo) external returns (uint32 payee);
    /// @notice Schedules another address to be paid to; the owner may schedule again, also back, until it applies.
    function setPayTo(uint32 payee, address payTo) external;
    /// @notice Credits one row that the account's settler signed. Anybody may bring it.
    function claim(bytes32 account, uint32 payee, uint72 total, bytes calldata signature)
        external
        returns (uint256 credited);
    /// @notice Credits rows of one account (as `post` takes them) with a signature of 65 bytes for each, in order.
    function claimMany(bytes32 account, bytes calldata rows, bytes calldata signatures)
        external
        returns (uint256 credited);
    /// @notice Gives `amount` of a lane back to its account: by the payee's owner.
    function refund(bytes32 account, uint32 payee, uint72 amount) external;
    /// @notice Pays what is mature in these accounts' lanes to the payee's address. Anybody may call it.
    function collect(uint32 payee, bytes32[] calldata accounts) external returns (uint256 amount);

    // --- The arbiter ---

    /// @notice Ends a case: `cut` of what is disputed returns to the account, the rest matures at once.
    function resolve(bytes32 account, uint32 payee, uint72 cut) external;
    /// @notice Pays the fees of cases to the arbiter. Anybody may call it.
    function collectCaseFees() external returns (uint256 amount);

    // --- Anybody ---

    function accountId(address payer, bytes32 salt) external view returns (bytes32);
    function viewAccount(bytes32 account) external view returns (AccountView memory);
    function viewLane(bytes32 account, uint32 payee) external view returns (LaneView memory);
    function viewSettler(uint32 settler) external view returns (SettlerView memory);
    function viewChange(bytes32 account) external view returns (ChangeView memory);
    function viewPayee(uint32 payee)
        external
        view
        returns (address owner, address payTo, uint256 changeAt, address next);
    function rowDigest(bytes32 account, uint32 payee, uint72 total) external view returns (bytes32);
    function releaseDigest(bytes32 account, uint72 amount, uint40 thawEnd) external view returns (bytes32);
}
