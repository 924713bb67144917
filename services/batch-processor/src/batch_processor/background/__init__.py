"""What the background loops share: rounds that survive outages, and setting aside what fails."""
