"""The leaderboard: published figures as data, records of runs, and the pages and tables made of both.

Imports run one way: `statistics`, `published` and `records` know nothing of each other, `tables` joins them, `markdown`
and `site` show tables, `build` and `collect` are the commands.
"""
