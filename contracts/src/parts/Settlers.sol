// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Store} from "./Store.sol";

/// @title Settlers: the keys that post and sign rows, and the rows
abstract contract Settlers is Store {
    function enroll(address hot) external returns (uint32 settler) {
        require(hot != address(0), ZeroAddress());
        settler = ++_lastSettler;
        _settlers[settler].hot = hot;
        _settlers[settler].cold = msg.sender;
        emit Enrolled(settler, hot, msg.sender);
    }

    function rotate(uint32 settler, address hot, bool compromised) external {
        Settler storage record = _onlyCold(settler);
        require(hot != address(0), ZeroAddress());
        if (compromised) {
            (record.previous, record.previousUntil) = (address(0), 0);
        } else {
            // Only the last key before keeps its time: another must not cut it short.
            require(block.timestamp >= record.previousUntil, TooEarly(record.previousUntil));
            (record.previous, record.previousUntil) = (record.hot, uint40(block.timestamp) + KEY_OVERLAP);
        }
        record.hot = hot;
        emit Rotated(settler, hot, compromised);
    }

    function halt(uint32 settler) external {
        Settler storage record = _onlyCold(settler);
        uint40 haltedUntil = record.haltedUntil;
        if (haltedUntil != 0) {
            uint256 next = uint256(haltedUntil) + THAW;
            require(block.timestamp >= next, TooEarly(next));
        }
        haltedUntil = uint40(block.timestamp) + HALT;
        record.haltedUntil = haltedUntil;
        emit Halted(settler, haltedUntil);
    }

    function post(bytes32 account, bytes calldata rows, bytes32 linesRoot, bytes32 journalHead)
        external
        returns (uint256 credited)
    {
        (uint32 number, Settler storage settler) = _settlerNow(account);
        require(msg.sender == settler.hot, NotSettler(number, msg.sender));
        uint256 count = _countRows(rows);
        mapping(uint32 => Lane) storage lanes = _lanes[account];
        // No bytes until a row waits.
        // slither-disable-next-line uninitialized-local
        bytes memory skipped;
        for (uint256 n; n < count; ++n) {
            (uint32 payee, uint72 total) = _rowAt(rows, n);
            (bool held, uint256 credit) = _credit(lanes, payee, total);
            if (held) skipped = _marked(skipped, n, count);
            unchecked {
                credited += credit;
            }
        }
        _spend(account, credited);
        emit Posted(account, number, credited, skipped, linesRoot, journalHead);
    }

    function claim(bytes32 account, uint32 payee, uint72 total, bytes calldata signature)
        external
        returns (uint256 credited)
    {
        (uint32 number, Settler storage settler) = _settlerNow(account);
        _requireSigned(number, settler, rowDigest(account, payee, total), signature);
        mapping(uint32 => Lane) storage lanes = _lanes[account];
        (bool held, uint256 credit) = _credit(lanes, payee, total);
        require(!held, WindowOpen(account, payee, lanes[payee].since + WINDOW));
        credited = credit;
        _spend(account, credited);
        emit Claimed(account, payee, credited, total);
    }

    function claimMany(bytes32 account, bytes calldata rows, bytes calldata signatures)
        external
        returns (uint256 credited)
    {
        (uint32 number, Settler storage settler) = _settlerNow(account);
        uint256 count = _countRows(rows);
        require(signatures.length == count * 65, MalformedSignatures(signatures.length, count * 65));
        mapping(uint32 => Lane) storage lanes = _lanes[account];
        // No bytes until a row waits.
        // slither-disable-next-line uninitialized-local
        bytes memory skipped;
        for (uint256 n; n < count; ++n) {
            (uint32 payee, uint72 total) = _rowAt(rows, n);
            _requireSigned(number, settler, rowDigest(account, payee, total), signatures[n * 65:(n + 1) * 65]);
            (bool held, uint256 credit) = _credit(lanes, payee, total);
            if (held) skipped = _marked(skipped, n, count);
            unchecked {
                credited += credit;
            }
        }
        _spend(account, credited);
        emit ClaimedMany(account, credited, skipped);
    }

    function _onlyCold(uint32 settler) private view returns (Settler storage record) {
        require(settler != 0 && settler <= _lastSettler, UnknownSettler(settler));
        record = _settlers[settler];
        require(msg.sender == record.cold, NotCold(settler, msg.sender));
    }
}
