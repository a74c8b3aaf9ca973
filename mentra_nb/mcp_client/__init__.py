"""The client of MCP servers: their tools, resources and prompts, through the official SDK (the extra `mcp`)."""
