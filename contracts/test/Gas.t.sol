// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Base} from "./Base.sol";

/// What each call costs, kept in `snapshots/Escrow.json`: a change of the sources that changes a cost shows there. Every
/// call is a transaction of its own (`--isolate`), so that these are what a chain would charge, to the unit.
contract GasTest is Base {
    uint256 private constant ROWS = 100;
    uint72 private constant FIRST = 1_234_567;
    uint72 private constant NEXT = 2_345_678;

    function setUp() public {
        _prepare(900_000e6, 900_000e6, 900_000e6, 1000);
        while (platform < ROWS + 2) platform = escrow.register(PLATFORM);
        _post(_rows(1, ROWS, FIRST));
        _later(WINDOW);
        escrow.collect(provider, _one());
    }

    function _rows(uint256 from, uint256 count, uint72 total) private pure returns (bytes memory rows) {
        // Joined in place: thousands of rows would fill the memory otherwise. A word is longer than a row, by 19 bytes.
        rows = new bytes(count * 13 + 19);
        for (uint256 n; n < count; ++n) {
            uint256 word = (from + n) << 224 | uint256(total) << 152;
            assembly ("memory-safe") {
                mstore(add(add(rows, 32), mul(n, 13)), word)
            }
        }
        assembly ("memory-safe") {
            mstore(rows, mul(count, 13))
        }
    }

    function _signatures(uint256 from, uint256 count, uint72 total) private view returns (bytes memory signatures) {
        for (uint256 n; n < count; ++n) {
            signatures = bytes.concat(signatures, _signed(uint32(from + n), total));
        }
    }

    function _record(string memory name) private {
        VM.snapshotGasLastCall("Escrow", name);
    }

    function test_gas_post() public {
        bytes memory rows = _rows(1, ROWS, NEXT);
        _post(rows);
        _record("post 100 rows of existing lanes");
        rows = _row(uint32(ROWS + 1), NEXT);
        _post(rows);
        _record("post 1 row of a new lane");
        _later(WINDOW);
        rows = _row(uint32(ROWS + 1), NEXT + 1);
        _post(rows);
        _record("post 1 row of an existing lane");
    }

    function test_gas_of_as_many_rows_as_fit_a_transaction() public {
        uint256 most = 2450;
        while (platform < most) platform = escrow.register(PLATFORM);
        for (uint256 n = ROWS + 1; n <= most; n += 50) {
            _post(_rows(n, 50, FIRST));
        }
        _later(WINDOW);
        bytes memory rows = _rows(1, most, NEXT);
        _post(rows);
        uint256 used = VM.snapshotGasLastCall("Escrow", "post 2450 rows of existing lanes");
        VM.snapshotValue("Escrow", "rows of existing lanes in 14M gas", most * 14e6 / used);
        require(used <= 14e6, "2450 rows fit");
    }

    function test_gas_claim() public {
        bytes memory signature = _signed(1, NEXT);
        escrow.claim(account, 1, NEXT, signature);
        _record("claim");
        (bytes memory rows, bytes memory signatures) = (_rows(2, 2, NEXT), _signatures(2, 2, NEXT));
        escrow.claimMany(account, rows, signatures);
        _record("claimMany 2");
        (rows, signatures) = (_rows(4, 20, NEXT), _signatures(4, 20, NEXT));
        escrow.claimMany(account, rows, signatures);
        _record("claimMany 20");
    }

    function test_gas_collect() public {
        bytes32[] memory accounts = new bytes32[](10);
        for (uint256 n; n < accounts.length; ++n) {
            account = accounts[n] = _another(n);
            _post(_row(1, FIRST));
        }
        _later(WINDOW);
        escrow.collect(1, accounts);
        for (uint256 n; n < accounts.length; ++n) {
            account = accounts[n];
            _post(_row(1, NEXT));
        }
        _later(WINDOW);
        account = accounts[0];
        escrow.collect(1, _one());
        _record("collect 1 lane");
        assembly {
            mstore(accounts, 9)
        }
        accounts[0] = accounts[8];
        assembly {
            mstore(accounts, 8)
        }
        escrow.collect(1, accounts);
        _record("collect 8 lanes");
    }

    function test_gas_of_the_payers_calls() public {
        VM.prank(PAYER);
        escrow.thaw(account, 1e6);
        _record("thaw");
        _later(THAW);
        VM.prank(PAYER);
        escrow.withdraw(account);
        _record("withdraw");
        bytes memory rows = _row(1, NEXT);
        _post(rows);
        VM.prank(PAYER);
        escrow.dispute(account, 1);
        _record("dispute");
        VM.prank(ARBITER);
        escrow.resolve(account, 1, 1);
        _record("resolve");
    }
}
