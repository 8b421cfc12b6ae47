// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Cases} from "./parts/Cases.sol";
import {Payees} from "./parts/Payees.sol";
import {Payers} from "./parts/Payers.sol";
import {Settlers} from "./parts/Settlers.sol";

/// @title Escrow
/// @notice See IEscrow. One contract a token; no owner, no proxy, no pause. Here are its terms and what it shows; what it
/// does is in its parts.
contract Escrow is Payers, Settlers, Payees, Cases {
    /// What is fixed for ever when the contract is deployed.
    struct Terms {
        /// Seconds in which a credited row can't be collected yet.
        uint40 window;
        /// Seconds that leaving takes: long enough for every row to arrive before, also after an outage.
        uint40 thaw;
        /// Seconds until a case lapses.
        uint40 case_;
        /// What a dispute costs.
        uint72 caseFee;
        /// Who resolves cases.
        address arbiter;
    }

    constructor(IERC20 token, Terms memory terms) EIP712("Supercargo Escrow", "1") {
        require(address(token) != address(0) && terms.arbiter != address(0), ZeroAddress());
        uint256 least = uint256(terms.window) + HALT + OUTAGE;
        require(terms.thaw > least, ThawTooShort(terms.thaw, least));
        require(terms.case_ >= terms.window, CaseTooShort(terms.case_, terms.window));
        TOKEN = token;
        WINDOW = terms.window;
        THAW = terms.thaw;
        CASE = terms.case_;
        CASE_FEE = terms.caseFee;
        ARBITER = terms.arbiter;
    }

    function viewAccount(bytes32 account) external view returns (AccountView memory) {
        Account storage record = _accounts[account];
        Funds memory funds = record.funds;
        Bounds memory bounds = record.bounds;
        _fill(funds, record.bounds);
        uint72 spendable = funds.allowance < funds.level ? funds.allowance : funds.level;
        if (funds.balance < spendable) spendable = funds.balance;
        uint40 haltedUntil = _settlers[funds.settler].haltedUntil;
        if (block.timestamp < bounds.frozenUntil || block.timestamp < haltedUntil) spendable = 0;
        return AccountView(
            record.payer,
            record.tenant,
            funds.balance,
            bounds.thawing,
            bounds.thawEnd,
            spendable,
            Limits(funds.allowance, bounds.burst, bounds.rate, funds.settler),
            _guardian(record),
            bounds.frozenUntil,
            record.funded - funds.balance
        );
    }

    function viewChange(bytes32 account) external view returns (ChangeView memory) {
        Account storage record = _accounts[account];
        Change memory change = record.change;
        return ChangeView(
            Limits(change.allowance, change.burst, change.rate, change.settler),
            change.applyAt,
            record.nextGuardian,
            record.guardianAt
        );
    }

    function viewLane(bytes32 account, uint32 payee) external view returns (LaneView memory) {
        Lane memory lane = _lanes[account][payee];
        Case memory case_ = _cases[account][payee];
        if (block.timestamp >= case_.lapsesAt) case_.lapsesAt = 0;
        return LaneView(
            lane.posted, _mature(lane), lane.withdrawn, lane.since + WINDOW, case_.lapsesAt, case_.fees, case_.returned
        );
    }

    function viewSettler(uint32 settler) external view returns (SettlerView memory) {
        require(settler != 0 && settler <= _lastSettler, UnknownSettler(settler));
        Settler memory record = _settlers[settler];
        return SettlerView(record.hot, record.cold, record.haltedUntil, record.previous, record.previousUntil);
    }

    function viewPayee(uint32 payee)
        external
        view
        returns (address owner, address payTo, uint256 changeAt, address next)
    {
        Payee storage record = _payee(payee);
        return (record.owner, _payTo(record), record.changeAt, record.next);
    }
}
