// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {TestToken} from "../src/test/TestToken.sol";

/// The few of forge's cheat codes that these tests use.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function warp(uint256 timestamp) external;
    function assume(bool condition) external pure;
    function prank(address sender) external;
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function expectRevert(bytes calldata revertData) external;
    function chainId(uint256 id) external;
    function snapshotGasLastCall(string calldata group, string calldata name) external returns (uint256);
    function snapshotValue(string calldata group, string calldata name, uint256 value) external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function readFile(string calldata path) external view returns (string memory);
    function parseJsonBytes32(string calldata json, string calldata key) external pure returns (bytes32);
    function parseJsonBytes(string calldata json, string calldata key) external pure returns (bytes memory);
    function parseJsonAddress(string calldata json, string calldata key) external pure returns (address);
    function parseJsonString(string calldata json, string calldata key) external pure returns (string memory);
    function parseJsonUint(string calldata json, string calldata key) external pure returns (uint256);
}

/// A contract with an account, a settler and two payees, as every test wants them.
abstract contract Base {
    Vm internal constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint40 internal constant WINDOW = 1 hours;
    uint40 internal constant THAW = 3 days;
    uint40 internal constant CASE = 7 days;
    uint72 internal constant CASE_FEE = 1e6;
    address internal constant ARBITER = address(0xA4B);
    address internal constant GUARDIAN = address(0x6A4D);
    uint256 internal constant HOT_KEY = 0xA11CE;
    address internal constant PAYER = address(0xBEEF);
    address internal constant PROVIDER = address(0xCAFE);
    address internal constant PLATFORM = address(0xFEE);
    address internal constant STRANGER = address(0xDEAD);

    TestToken internal token;
    Escrow internal escrow;
    uint32 internal settler;
    uint32 internal provider;
    uint32 internal platform;
    bytes32 internal account;
    address internal hot;

    function _prepare(uint72 balance, uint72 allowance, uint40 burst, uint40 rate) internal {
        VM.warp(1_700_000_000);
        hot = VM.addr(HOT_KEY);
        token = new TestToken();
        escrow = new Escrow(token, _terms());
        settler = escrow.enroll(hot);
        VM.prank(PROVIDER);
        provider = escrow.register(PROVIDER);
        VM.prank(PLATFORM);
        platform = escrow.register(PLATFORM);
        VM.prank(PAYER);
        account = escrow.open("one", 0, address(0), IEscrow.Limits(allowance, burst, rate, settler));
        _deposit(balance);
    }

    function _terms() internal pure returns (Escrow.Terms memory) {
        return Escrow.Terms(WINDOW, THAW, CASE, CASE_FEE, ARBITER);
    }

    function _deposit(uint256 amount) internal {
        if (amount == 0) return;
        token.mint(PAYER, amount);
        VM.prank(PAYER);
        token.approve(address(escrow), amount);
        VM.prank(PAYER);
        escrow.deposit(account, amount);
    }

    /// Another funded account of the same payer and settler.
    function _another(uint256 salt) internal returns (bytes32 other) {
        VM.prank(PAYER);
        other = escrow.open(keccak256(abi.encode(salt)), 0, address(0), IEscrow.Limits(1000e6, 1000e6, 1000, settler));
        bytes32 first = account;
        account = other;
        _deposit(1000e6);
        account = first;
    }

    function _row(uint32 payee, uint72 total) internal pure returns (bytes memory) {
        return abi.encodePacked(payee, total);
    }

    function _post(bytes memory rows) internal returns (uint256) {
        VM.prank(hot);
        return escrow.post(account, rows, "lines", "head");
    }

    function _signed(uint32 payee, uint72 total) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(HOT_KEY, escrow.rowDigest(account, payee, total));
        return abi.encodePacked(r, s, v);
    }

    function _one() internal view returns (bytes32[] memory accounts) {
        accounts = new bytes32[](1);
        accounts[0] = account;
    }

    function _now() internal view returns (uint256 seconds_) {
        // Read through assembly: the optimizer takes block.timestamp for constant within one test.
        assembly {
            seconds_ := timestamp()
        }
    }

    function _later(uint256 seconds_) internal {
        VM.warp(_now() + seconds_);
    }

    function _eq(uint256 got, uint256 wanted, string memory what) internal pure {
        require(got == wanted, what);
    }
}
