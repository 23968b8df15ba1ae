"""What the commands of `keirin` do between the command line and a flow, and what they print."""
