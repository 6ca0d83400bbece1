"""The only room that imports Dagster: assets, checks, jobs, schedule, sensors, resources, the instance.

Backfill policies are still marked beta in Dagster; that is weighed in docs/adr/0001 and not repeated at every start.
"""

import warnings

from dagster import BetaWarning, PreviewWarning

for _category in (BetaWarning, PreviewWarning):
    warnings.filterwarnings("ignore", category=_category)
