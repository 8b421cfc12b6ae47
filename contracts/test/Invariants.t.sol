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
    mapping(bool byGuardian => uint256) private frozenAt;
    uint256 private scheduledAt;
    uint40 public lowestRate = 2000;
    uint256 public overspent;
    uint256 public burstFrom;
    // Where the posted total stood at some times before, to look at any interval and not only the whole.
    uint256[8] private markAt;
    uint256[8] private markPosted;
    uint256 private marks;
    // Another payer's account, with the same settler and payees.
    bytes32 public other;
    address private constant OTHER_PAYER = address(0x0B0E);
    uint256 public otherDeposited;
    uint256 public otherFees;
    uint256 public otherReturned;
    uint256 public loweredEarly;
    uint256 public creditedFrozen;
    uint256 public fell;

    constructor() {
        _prepare(0, type(uint72).max, 500e6, 2000);
        VM.prank(PAYER);
        escrow.appoint(account, GUARDIAN);
        VM.prank(OTHER_PAYER);
        other = escrow.open("two", 0, GUARDIAN, IEscrow.Limits(type(uint72).max / 2, 300e6, 1000, settler));
        started = _now();
    }

    function addMoney(uint64 amount) external {
        if (amount == 0) return;
        _deposit(amount);
        deposited += amount;
    }

    function postRow(bool first, uint64 more) external {
        if (_stopped()) return;
        (uint32 payee, uint72 total) = _affordable(first, more);
        uint256 dueAt = _dueAt(payee);
        if (_post(_row(payee, total)) != 0) lastDueAt[payee] = dueAt;
        _look();
    }

    /// A credit is due after its window, or when the case lapses that it joins.
    function _dueAt(uint32 payee) private view returns (uint256) {
        uint256 lapsesAt = escrow.viewLane(account, payee).disputedUntil;
        return lapsesAt != 0 ? lapsesAt : _now() + WINDOW;
    }

    function _stopped() private view returns (bool) {
        return _now() < escrow.viewAccount(account).frozenUntil || _halted();
    }

    function _halted() private view returns (bool) {
        return _now() < escrow.viewSettler(settler).haltedUntil;
    }

    function overspend(bool first, uint64 more) external {
        uint32 payee = first ? provider : platform;
        uint72 total = escrow.viewLane(account, payee).posted + escrow.viewAccount(account).spendable + 1 + more;
        (bool ok, bytes memory answer) = _tryPost(_row(payee, total));
        if (ok && abi.decode(answer, (uint256)) != 0) ++overspent;
    }

    function claimBoth(uint32 more) external {
        if (_stopped()) return;
        (uint32 payee, uint72 total) = _affordable(true, more);
        uint256 dueAt = _dueAt(payee);
        uint72 there = escrow.viewLane(account, platform).posted;
        bytes memory rows = abi.encodePacked(_row(payee, total), _row(platform, there));
        bytes memory signatures = abi.encodePacked(_signed(payee, total), _signed(platform, there));
        if (escrow.claimMany(account, rows, signatures) != 0) lastDueAt[payee] = dueAt;
        _look();
    }

    function halt() external {
        uint256 last = escrow.viewSettler(settler).haltedUntil;
        if (last != 0 && _now() < last + THAW) return;
        escrow.halt(settler);
    }

    function releaseThaw() external {
        IEscrow.AccountView memory seen_ = escrow.viewAccount(account);
        if (seen_.thawing == 0 || _stopped()) return;
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(HOT_KEY, escrow.releaseDigest(account, seen_.thawing, seen_.thawEnd));
        escrow.release(account, abi.encodePacked(r, s, v));
    }

    // --- The other account: whatever happens to the first, and to it, moves nothing between them ---

    function addOthersMoney(uint64 amount) external {
        if (amount == 0) return;
        token.mint(OTHER_PAYER, amount);
        VM.prank(OTHER_PAYER);
        token.approve(address(escrow), amount);
        VM.prank(OTHER_PAYER);
        escrow.deposit(other, amount);
        otherDeposited += amount;
    }

    function postOthersRow(uint64 more) external {
        if (_halted()) return;
        uint72 spendable = escrow.viewAccount(other).spendable;
        uint72 total = escrow.viewLane(other, provider).posted + (spendable == 0 ? 0 : uint72(more) % (spendable + 1));
        VM.prank(hot);
        escrow.post(other, _row(provider, total), 0, 0);
    }

    function disputeOthers(bool answered, uint72 cut) external {
        IEscrow.LaneView memory now_ = escrow.viewLane(other, provider);
        if (now_.disputedUntil == 0) {
            if (now_.mature == now_.posted || escrow.viewAccount(other).balance < CASE_FEE) return;
            VM.prank(OTHER_PAYER);
            escrow.dispute(other, provider);
            otherFees += CASE_FEE;
        } else if (answered) {
            cut = cut % (now_.posted - now_.mature + 1);
            VM.prank(ARBITER);
            escrow.resolve(other, provider, cut);
            otherReturned += cut;
        }
    }

    function raiseOthers(uint16 more) external {
        IEscrow.Limits memory limits = escrow.viewAccount(other).limits;
        if (uint256(limits.burst) + more > type(uint40).max) return;
        VM.prank(OTHER_PAYER);
        escrow.raise(other, limits.allowance, limits.burst + more, limits.rate);
    }

    function otherLane() external view returns (IEscrow.LaneView memory) {
        return escrow.viewLane(other, provider);
    }

    function otherFunds() external view returns (IEscrow.AccountView memory) {
        return escrow.viewAccount(other);
    }

    function repeatRow(bool first) external {
        if (_stopped()) return;
        uint32 payee = first ? provider : platform;
        _eq(_post(_row(payee, escrow.viewLane(account, payee).posted)), 0, "a repeated row was credited");
    }

    function claimRow(bool first, uint64 more) external {
        if (_stopped()) return;
        (uint32 payee, uint72 total) = _affordable(first, more);
        IEscrow.LaneView memory there = escrow.viewLane(account, payee);
        bool inWindow = there.mature < there.posted && _now() + WINDOW >= there.maturesAt;
        if (inWindow && total > there.posted) return;
        uint256 dueAt = _dueAt(payee);
        if (escrow.claim(account, payee, total, _signed(payee, total)) != 0) lastDueAt[payee] = dueAt;
        _look();
    }

    function collect(bool first) external {
        uint32 payee = first ? provider : platform;
        IEscrow.LaneView memory lane = escrow.viewLane(account, payee);
        IEscrow.LaneView memory there = escrow.viewLane(other, payee);
        if (lane.mature == lane.withdrawn && there.mature == there.withdrawn) return;
        bytes32[] memory both = new bytes32[](2);
        (both[0], both[1]) = (account, other);
        paid[payee] += escrow.collect(payee, both);
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
        if (fees + otherFees != feesPaid) feesPaid += escrow.collectCaseFees();
    }

    function freeze(bool guard) external {
        if (frozenAt[guard] != 0 && _now() < frozenAt[guard] + 3 days + THAW + 1 days) return;
        VM.prank(guard ? GUARDIAN : PAYER);
        escrow.freeze(account);
        frozenAt[guard] = _now();
        (bool ok,) = _tryPost(_row(provider, escrow.viewLane(account, provider).posted + 1));
        if (ok) ++creditedFrozen;
    }

    function lower(uint40 rate) external {
        IEscrow.Limits memory limits = escrow.viewAccount(account).limits;
        limits.rate = rate % (limits.rate + 1);
        VM.prank(PAYER);
        escrow.schedule(account, limits);
        scheduledAt = _now();
        if (limits.rate < lowestRate) lowestRate = limits.rate;
    }

    /// At any time, whatever the contract says of when it may.
    function applyLower() external {
        (bool ok,) = address(escrow).call(abi.encodeCall(IEscrow.applyChange, (account)));
        if (ok && _now() < scheduledAt + THAW) ++loweredEarly;
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
        uint256 posted = uint256(escrow.viewLane(account, provider).posted) + escrow.viewLane(account, platform).posted;
        for (uint256 n; n < marks && n < 8; ++n) {
            if (posted - markPosted[n] > 500e6 + 2000 * (_now() - markAt[n])) ++burstFrom;
        }
        (markAt[marks % 8], markPosted[marks % 8]) = (_now(), posted);
        ++marks;
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

    function change() external view returns (IEscrow.ChangeView memory) {
        return escrow.viewChange(account);
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
        uint256 owed = handler.funds().balance + handler.fees() + handler.otherFees() - handler.feesPaid();
        owed += handler.lane(true).posted - handler.lane(true).withdrawn;
        owed += handler.lane(false).posted - handler.lane(false).withdrawn;
        owed += handler.otherFunds().balance;
        owed += handler.otherLane().posted - handler.otherLane().withdrawn;
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
            uint256 withdrawn = handler.lane(n == 0).withdrawn;
            if (n == 0) withdrawn += handler.otherLane().withdrawn - handler.otherReturned();
            require(handler.paid(number) + handler.returnedByLane(number) == withdrawn, "withdrawn");
        }
    }

    function invariant_07_a_payee_has_what_was_paid() public view {
        require(handler.paidTo(true) == handler.paid(handler.payee(true)), "first");
        require(handler.paidTo(false) == handler.paid(handler.payee(false)), "second");
    }

    function invariant_08_no_more_is_credited_in_any_interval_than_burst_and_rate_allow() public view {
        require(_posted() <= handler.mostThatMayHaveLeft(), "since the start");
        require(handler.burstFrom() == 0, "since some time between");
    }

    function invariant_09_what_left_and_what_is_left_is_the_allowance() public view {
        require(handler.funds().limits.allowance + _posted() == type(uint72).max, "allowance");
    }

    function invariant_10_no_more_is_ever_credited_than_is_spendable() public view {
        require(handler.overspent() == 0, "overspent");
        require(handler.funds().spendable <= handler.funds().limits.burst, "burst");
    }

    function invariant_11_the_payer_gets_back_only_what_it_withdrew() public view {
        require(handler.payerHas() == handler.returned(), "payer");
    }

    function invariant_12_the_arbiter_gets_only_fees() public view {
        require(
            handler.arbiterHas() == handler.feesPaid() && handler.feesPaid() <= handler.fees() + handler.otherFees(),
            "fees"
        );
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
        require(handler.change().applyAt <= handler.time() + 3 days + thaw, "change");
    }

    function invariant_21_limits_change_only_by_the_payer() public view {
        require(handler.funds().limits.rate <= 2000 && handler.funds().limits.rate >= handler.lowestRate(), "rate");
        require(handler.funds().limits.burst == 500e6, "burst");
    }

    function invariant_22_an_account_is_changed_by_nothing_that_happens_to_another() public view {
        uint256 left = handler.otherDeposited() + handler.otherReturned();
        left -= handler.otherLane().posted + handler.otherFees();
        require(handler.otherFunds().balance == left, "the other account");
    }

    function invariant_23_what_an_account_says_was_credited_is_what_its_lanes_have() public view {
        require(handler.funds().credited == _posted(), "the account");
        require(handler.otherFunds().credited == handler.otherLane().posted, "the other account");
    }

    function invariant_24_lanes_say_what_went_back_and_what_their_cases_cost() public view {
        require(handler.lane(true).returned == handler.returnedByLane(handler.payee(true)), "first");
        require(handler.lane(false).returned == handler.returnedByLane(handler.payee(false)), "second");
        require(handler.otherLane().returned == handler.otherReturned(), "the other account's");
        require(handler.lane(true).caseFees + handler.lane(false).caseFees == handler.fees(), "fees");
        require(handler.otherLane().caseFees == handler.otherFees(), "the other account's fees");
    }
}
