"""How property tests run here."""

from hypothesis import HealthCheck, settings

# No clock decides: a machine that is busy with other tests is slow, not wrong.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
