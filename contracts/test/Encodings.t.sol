// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Base} from "./Base.sol";

/// The encodings that others build on, held to the vectors that the Rust crates are held to as well.
contract EncodingsTest is Base {
    string private json;

    function setUp() public {
        json = VM.readFile("vectors/encodings.json");
    }

    function _number(string memory at) private view returns (uint256) {
        return VM.parseJsonUint(json, at);
    }

    function _hash(string memory at) private view returns (bytes32) {
        return VM.parseJsonBytes32(json, at);
    }

    function _bytes(string memory at) private view returns (bytes memory) {
        return VM.parseJsonBytes(json, at);
    }

    function _typed(bytes32 record) private view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Supercargo Escrow"),
                keccak256("1"),
                _number(".account.chainId"),
                VM.parseJsonAddress(json, ".account.contract")
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, record));
    }

    function test_rows_are_packed_as_recorded() public view {
        bytes memory rows = abi.encodePacked(
            _row(uint32(_number(".rows.payee1")), uint72(_number(".rows.total1"))),
            _row(uint32(_number(".rows.payee2")), uint72(_number(".rows.total2")))
        );
        require(keccak256(rows) == keccak256(_bytes(".rows.packed")), "packed rows");
    }

    function test_an_account_has_the_recorded_id() public view {
        bytes32 id = keccak256(
            abi.encode(
                keccak256("supercargo.account.v1"),
                _number(".account.chainId"),
                VM.parseJsonAddress(json, ".account.contract"),
                VM.parseJsonAddress(json, ".account.payer"),
                _hash(".account.salt")
            )
        );
        require(id == _hash(".account.id"), "account id");
    }

    function test_rows_and_releases_are_signed_as_recorded() public view {
        bytes32 id = _hash(".account.id");
        bytes32 row = keccak256(
            abi.encode(
                keccak256("Row(bytes32 account,uint32 payee,uint72 total)"),
                id,
                _number(".rows.payee1"),
                _number(".rows.total1")
            )
        );
        require(_typed(row) == _hash(".row.digest"), "row digest");
        bytes32 release = keccak256(
            abi.encode(
                keccak256("Release(bytes32 account,uint72 amount,uint40 thawEnd)"),
                id,
                _number(".release.amount"),
                _number(".release.thawEnd")
            )
        );
        require(_typed(release) == _hash(".release.digest"), "release digest");
    }

    /// What the contract itself says, built here by hand: so that the recorded types are the ones it uses.
    function test_the_contract_signs_by_the_same_types() public {
        _prepare(1e6, 1e6, 1e6, 0);
        bytes32 row = keccak256(
            abi.encode(keccak256("Row(bytes32 account,uint32 payee,uint72 total)"), account, uint256(7), uint256(8))
        );
        bytes32 release = keccak256(
            abi.encode(
                keccak256("Release(bytes32 account,uint72 amount,uint40 thawEnd)"), account, uint256(7), uint256(8)
            )
        );
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Supercargo Escrow"),
                keccak256("1"),
                block.chainid,
                address(escrow)
            )
        );
        require(escrow.rowDigest(account, 7, 8) == keccak256(abi.encodePacked(hex"1901", domain, row)), "row");
        require(
            escrow.releaseDigest(account, 7, 8) == keccak256(abi.encodePacked(hex"1901", domain, release)), "release"
        );
        require(
            account
                == keccak256(
                    abi.encode(
                        keccak256("supercargo.account.v1"), block.chainid, address(escrow), PAYER, bytes32("one")
                    )
                ),
            "account"
        );
    }

    function test_a_tenant_has_the_recorded_id() public view {
        bytes32 tenant = keccak256(
            abi.encode(
                keccak256("supercargo.tenant.v1"),
                VM.parseJsonString(json, ".tenant.kubeSystemUid"),
                VM.parseJsonString(json, ".tenant.namespaceUid"),
                VM.parseJsonString(json, ".tenant.name")
            )
        );
        require(tenant == _hash(".tenant.id"), "tenant");
    }

    function test_usage_lines_have_the_recorded_root() public view {
        bytes32 first = sha256(abi.encodePacked(hex"00", _hash(".lines.salts[0]"), _bytes(".lines.lines[0]")));
        bytes32 second = sha256(abi.encodePacked(hex"00", _hash(".lines.salts[1]"), _bytes(".lines.lines[1]")));
        bytes32 third = sha256(abi.encodePacked(hex"00", _hash(".lines.salts[2]"), _bytes(".lines.lines[2]")));
        bytes32 two = sha256(abi.encodePacked(hex"01", first, second));
        require(two == _hash(".lines.firstTwo"), "two lines");
        require(sha256(abi.encodePacked(hex"01", two, third)) == _hash(".lines.root"), "three lines");
    }

    function test_a_journal_entry_has_the_recorded_hash() public view {
        (string memory name, string memory kind) =
            (VM.parseJsonString(json, ".journal.name"), VM.parseJsonString(json, ".journal.kind"));
        bytes memory rest = abi.encodePacked(
            uint64(bytes(name).length),
            name,
            uint64(bytes(kind).length),
            kind,
            uint64(_number(".journal.sequence")),
            _hash(".journal.previous"),
            sha256(_bytes(".journal.payload"))
        );
        bytes memory tag = "supercargo.journal.entry";
        require(sha256(abi.encodePacked(tag, uint32(1), rest)) == _hash(".journal.unsigned"), "unsigned");
        require(
            sha256(abi.encodePacked(tag, uint32(2), rest, _hash(".journal.signer"))) == _hash(".journal.signed"),
            "signed"
        );
    }
}
