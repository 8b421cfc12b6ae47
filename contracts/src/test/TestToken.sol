// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title A token for local chains and tests. Anybody mints as much as they like: it is worth nothing anywhere.
contract TestToken is ERC20Permit {
    constructor() ERC20("Test USD, worth nothing", "TESTUSD") ERC20Permit("Test USD, worth nothing") {}

    function decimals() public pure override returns (uint8) {
        return 6;
    }

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}
