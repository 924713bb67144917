"""The parts that background loops share: rounds that survive outages, and setting failures aside."""
