"""Generations recorded with the Langfuse SDK, sent where ``BASE_URL`` says: ``python call_with_langfuse.py BASE_URL``.

Prints what was told to the SDK, as JSON.
"""

import json
import sys

from langfuse import Langfuse

client = Langfuse(public_key="pk", secret_key="sk", base_url=sys.argv[1], flush_at=1)
told = []
for number in range(1, 4):
    usage = {"input": 100 * number, "input_cached_tokens": 40, "output": 20 * number, "output_reasoning_tokens": 7}
    cost = {"input": 0.001 * number, "output": 0.0000001, "total": 0.001 * number + 0.0000001}
    with (
        client.start_as_current_observation(name="triage", as_type="agent"),
        client.start_as_current_observation(
            name="answer", as_type="generation", model="gpt-4o", input="hush", usage_details=usage, cost_details=cost
        ),
    ):
        pass
    told.append({"usage": usage, "cost": cost["total"]})
client.flush()
client.shutdown()
print(json.dumps(told))
