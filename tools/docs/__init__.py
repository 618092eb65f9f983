"""The documentation's site: pages of this repository, reference pages made of the code, and the leaderboard."""
