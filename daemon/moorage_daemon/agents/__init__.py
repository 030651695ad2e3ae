"""Who answers prompts. `port` says what an agent is; each other module is one."""
