"""What checks types and shapes in every function of the suite under pytest: a whole number is a number, too."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
