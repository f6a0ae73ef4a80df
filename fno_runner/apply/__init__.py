"""A trained network put to use on another scan: found, checked, run, refined, adapted, exported."""
