// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Base} from "./Base.sol";
import {Escrow} from "../src/Escrow.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// Tokens that fail, in all the ways that are known: only whoever collects or withdraws is ever touched.
contract TokensTest is Base {
    OddToken private odd;
    address private constant OTHER = address(0x07E4);

    function setUp() public {
        VM.warp(1_700_000_000);
        odd = new OddToken();
        hot = VM.addr(HOT_KEY);
        escrow = new Escrow(IERC20(address(odd)), _terms());
        settler = escrow.enroll(hot);
        VM.prank(PROVIDER);
        provider = escrow.register(PROVIDER);
        VM.prank(OTHER);
        platform = escrow.register(OTHER);
        VM.prank(PAYER);
        account = escrow.open("one", 0, address(0), IEscrow.Limits(100e6, 100e6, 0, settler));
        odd.mint(PAYER, 200e6);
        VM.prank(PAYER);
        escrow.deposit(account, 100e6);
    }

    function _owe() private {
        _post(abi.encodePacked(_row(provider, 10e6), _row(platform, 20e6)));
        _later(WINDOW);
    }

    function _refused(bytes memory call) private returns (bytes memory why) {
        bool ok;
        (ok, why) = address(escrow).call(call);
        require(!ok, "it went through");
    }

    function test_a_token_that_delivers_less_is_refused() public {
        odd.set(OddToken.Mode.Short);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.ShortTransfer.selector, 50e6, 50e6 - 1));
        VM.prank(PAYER);
        escrow.deposit(account, 50e6);
        _eq(escrow.viewAccount(account).balance, 100e6, "as it was");
    }

    function test_a_token_that_delivers_more_is_refused() public {
        odd.set(OddToken.Mode.Generous);
        VM.expectRevert(abi.encodeWithSelector(IEscrow.ShortTransfer.selector, 50e6, 50e6 + 1));
        VM.prank(PAYER);
        escrow.deposit(account, 50e6);
    }

    function test_a_token_that_answers_nothing_is_as_good_as_one_that_answers_true() public {
        odd.set(OddToken.Mode.Mute);
        VM.prank(PAYER);
        escrow.deposit(account, 50e6);
        _owe();
        _eq(escrow.collect(provider, _one()), 10e6, "collected");
        _eq(odd.balanceOf(PROVIDER), 10e6, "paid");
    }

    function test_a_token_that_answers_false_pays_nobody_and_loses_nothing() public {
        _owe();
        odd.set(OddToken.Mode.False);
        bytes memory why = abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(odd));
        VM.expectRevert(why);
        escrow.collect(provider, _one());
        VM.expectRevert(why);
        VM.prank(PAYER);
        escrow.deposit(account, 1e6);
        odd.set(OddToken.Mode.Honest);
        _eq(escrow.collect(provider, _one()), 10e6, "all of it, later");
    }

    function test_a_blocked_payee_holds_up_nobody_else() public {
        _owe();
        odd.block_(PROVIDER);
        _refused(abi.encodeCall(IEscrow.collect, (provider, _one())));
        _eq(escrow.collect(platform, _one()), 20e6, "the other payee");
        _eq(_post(_row(provider, 15e6)), 5e6, "crediting goes on");
        VM.prank(PROVIDER);
        escrow.setPayTo(provider, OTHER);
        _later(7 days);
        _eq(escrow.collect(provider, _one()), 15e6, "to another address");
    }

    function test_a_blocked_payer_withdraws_nothing_and_still_pays() public {
        VM.prank(PAYER);
        escrow.thaw(account, 100e6);
        _later(THAW);
        odd.block_(PAYER);
        VM.prank(PAYER);
        _refused(abi.encodeCall(IEscrow.withdraw, (account)));
        _owe();
        _eq(escrow.collect(provider, _one()), 10e6, "the payee is paid");
        _eq(escrow.viewAccount(account).thawing, 100e6, "the way out is as it was");
    }

    function test_a_paused_token_delays_collecting_and_nothing_else() public {
        odd.set(OddToken.Mode.Paused);
        _owe();
        bytes memory signature = _signed(provider, 12e6);
        _eq(escrow.claim(account, provider, 12e6, signature), 2e6, "claimed");
        _refused(abi.encodeCall(IEscrow.collect, (platform, _one())));
        odd.set(OddToken.Mode.Honest);
        _eq(escrow.collect(platform, _one()), 20e6, "all of it, later");
    }

    function test_a_token_that_calls_back_from_any_transfer_is_refused() public {
        _owe();
        bytes memory guarded = abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        bytes[] memory back = new bytes[](4);
        back[0] = abi.encodeCall(IEscrow.collect, (platform, _one()));
        back[1] = abi.encodeCall(IEscrow.deposit, (account, 1));
        back[2] = abi.encodeCall(IEscrow.collectCaseFees, ());
        back[3] = abi.encodeCall(IEscrow.withdraw, (account));
        for (uint256 n; n < back.length; ++n) {
            odd.aim(address(escrow), back[n]);
            require(
                keccak256(_refused(abi.encodeCall(IEscrow.collect, (provider, _one())))) == keccak256(guarded),
                "called back while collecting"
            );
            VM.prank(PAYER);
            require(
                keccak256(_refused(abi.encodeCall(IEscrow.deposit, (account, 1e6)))) == keccak256(guarded),
                "called back while depositing"
            );
        }
        odd.aim(address(0), "");
        _eq(escrow.collect(provider, _one()), 10e6, "all of it, later");
    }

    function test_credits_made_from_within_a_transfer_find_the_books_already_written() public {
        _owe();
        // `claim` takes no guard: nothing is sent in it. Whatever calls it from within sees the lane as collected.
        odd.aim(address(escrow), abi.encodeCall(IEscrow.claim, (account, provider, 12e6, _signed(provider, 12e6))));
        _eq(escrow.collect(provider, _one()), 10e6, "collected what was mature");
        IEscrow.LaneView memory lane = escrow.viewLane(account, provider);
        _eq(lane.withdrawn, 10e6, "withdrawn");
        _eq(lane.posted, 12e6, "and credited");
        _eq(lane.mature, 10e6, "in its window");
    }
}

/// A token that can be told how to misbehave. Its allowances are unlimited: nothing here asks about those.
contract OddToken {
    enum Mode {
        Honest,
        Short,
        Generous,
        Mute,
        False,
        Paused
    }

    mapping(address holder => uint256) public balanceOf;
    mapping(address holder => bool) private blocked;
    Mode private mode;
    address private target;
    bytes private data;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function set(Mode now_) external {
        mode = now_;
    }

    function block_(address holder) external {
        blocked[holder] = true;
    }

    function aim(address at, bytes calldata what) external {
        (target, data) = (at, what);
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        return _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        return _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private returns (bool) {
        require(mode != Mode.Paused && !blocked[from] && !blocked[to], "the token says no");
        if (mode == Mode.False) return false;
        balanceOf[from] -= amount;
        balanceOf[to] += mode == Mode.Short ? amount - 1 : mode == Mode.Generous ? amount + 1 : amount;
        if (target != address(0)) _callBack();
        if (mode == Mode.Mute) {
            assembly {
                return(0, 0)
            }
        }
        return true;
    }

    function _callBack() private {
        (address at, bytes memory what) = (target, data);
        target = address(0);
        (bool ok, bytes memory why) = at.call(what);
        target = at;
        if (!ok) {
            assembly {
                revert(add(why, 32), mload(why))
            }
        }
    }
}
