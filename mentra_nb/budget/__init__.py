"""What turns may use: limits in money, tokens, tool calls and minutes, reserved in the store beforehand."""
