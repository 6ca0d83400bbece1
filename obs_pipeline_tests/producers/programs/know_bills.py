"""Billing APIs as the sellers' own client libraries know them: ``python know_bills.py OPENAI ANTHROPIC FIRST UNTIL``.

Asks OpenAI's stand-in with OpenAI's client, page by page, and reads what it answered with the client's own types, strictly. Of
Anthropic there is a typed client for the sister report of its analytics only: what the two share is held against those types.
Prints, as JSON, what was added up and whatever was not as it should be.
"""

import json
import sys
from datetime import datetime
from typing import get_args

import httpx2
import openai
from anthropic.types.beta.organization import BetaAnalyticsCostBucketedResult, BetaAnalyticsUsageBucketedResult
from anthropic.types.beta.organization.beta_analytics_cost_type import BetaAnalyticsCostType
from anthropic.types.beta.organization.beta_analytics_token_type import BetaAnalyticsTokenType
from openai.types.admin.organization import UsageCompletionsResponse, UsageCostsResponse, UsageEmbeddingsResponse
from pydantic import TypeAdapter

openai_at, anthropic_at, first, until = sys.argv[1:]
client = openai.OpenAI(api_key="none", admin_api_key="sk-admin", base_url=f"{openai_at}/v1", max_retries=0)
usage = client.admin.organization.usage


def seconds(day):
    return int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp())


span = {"start_time": seconds(first), "end_time": seconds(until)}
asked = {
    "costs": (usage.costs, UsageCostsResponse, ["project_id", "line_item"], 180),
    "completions": (usage.completions, UsageCompletionsResponse, ["project_id", "model"], 31),
    "embeddings": (usage.embeddings, UsageEmbeddingsResponse, ["project_id", "model"], 31),
}
told = {"cost": 0.0, "tokens": 0, "unknown": [], "anthropic": {}}


def strictly(kind, page):
    """Every field of an answer must be one that the type knows, and of its type."""
    read = TypeAdapter(kind).validate_python(page, strict=True)
    for bucket in read.data:
        told["unknown"] += [name for result in bucket.results for name in result.model_extra or ()]


for ask, kind, groups, limit in asked.values():
    page = openai.NOT_GIVEN
    while True:
        answer = ask(**span, bucket_width="1d", limit=limit, group_by=groups, page=page)
        strictly(kind, json.loads(answer.model_dump_json(exclude_unset=True)))
        for result in (result for bucket in answer.data for result in bucket.results):
            if kind is UsageCostsResponse:
                told["cost"] += result.amount.value
            else:
                told["tokens"] += result.input_tokens
        if not answer.has_more:
            break
        page = answer.next_page

no_tools = {"server_tool_use": {"web_search_requests": 0}}
shared = {
    "cost_report": (BetaAnalyticsCostBucketedResult, {"list_amount": "0"}, {"workspace_id", "description"}),
    "usage_report/messages": (BetaAnalyticsUsageBucketedResult, no_tools, {"workspace_id"}),
}
for path, (kind, more, only_here) in shared.items():
    query = {"starting_at": f"{first}T00:00:00Z", "ending_at": f"{until}T00:00:00Z"}
    page = httpx2.get(f"{anthropic_at}/v1/organizations/{path}", params=query).json()
    for result in (result for bucket in page["data"] for result in bucket["results"]):
        common = {name: value for name, value in result.items() if name not in only_here}
        read = TypeAdapter(kind).validate_python({**common, **more})
        told["unknown"] += list(read.model_extra or ())
told["anthropic"] = {"token_types": get_args(BetaAnalyticsTokenType), "cost_types": get_args(BetaAnalyticsCostType)}
print(json.dumps(told))
