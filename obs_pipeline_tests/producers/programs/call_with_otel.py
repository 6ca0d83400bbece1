"""Calls of OpenAI and Anthropic models with OpenTelemetry's instrumentors, exported over OTLP/HTTP by the real exporter.

``python call_with_otel.py COLLECTOR TOKEN UPSTREAM``: each line on standard input makes one agent run of three calls and exports
it; the answer is ``exported`` or ``failed``, and what the instrumented clients were told of their usage, as JSON.
"""

import json
import sys

import anthropic
import openai
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

collector, token, upstream = sys.argv[1:]


class Held(SpanProcessor):
    """Keeps ended spans until they are exported: what a batch processor does, without its timer."""

    def __init__(self) -> None:
        self.spans = []

    def on_end(self, span) -> None:
        self.spans.append(span)


exporter = OTLPSpanExporter(
    endpoint=f"{collector}/v1/traces",
    headers={"Authorization": f"Bearer {token}"},
    compression=Compression.Gzip,
    timeout=5,
)
held = Held()
provider = TracerProvider(resource=Resource.create({"service.name": "support-desk", "team.id": "care"}))
provider.add_span_processor(held)
trace.set_tracer_provider(provider)
OpenAIInstrumentor().instrument(tracer_provider=provider)
AnthropicInstrumentor().instrument(tracer_provider=provider)
chat = openai.OpenAI(api_key="none", base_url=f"{upstream}/v1", max_retries=0)
claude = anthropic.Anthropic(api_key="none", base_url=upstream, max_retries=0)
tracer = trace.get_tracer("agent")

for _line in sys.stdin:
    told = []
    with tracer.start_as_current_span("invoke_agent triage") as span:
        span.set_attribute("gen_ai.operation.name", "invoke_agent")
        span.set_attribute("gen_ai.agent.name", "triage")
        span.set_attribute("gen_ai.conversation.id", "conv-7")
        asked = [{"role": "user", "content": "hush"}]
        answer = chat.chat.completions.create(model="gpt-4o", messages=asked)
        told.append([answer.id, answer.usage.prompt_tokens, answer.usage.completion_tokens])
        said = claude.messages.create(model="claude-sonnet-4-5", max_tokens=50, messages=asked)
        usage = said.usage
        inclusive = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        told.append([said.id, inclusive, usage.output_tokens])
        try:
            chat.chat.completions.create(model="broken", messages=asked)
        except openai.RateLimitError:
            told.append(["error", None, None])
    result = exporter.export(held.spans)
    print(json.dumps({"exported": result == SpanExportResult.SUCCESS, "told": told}), flush=True)
    if result == SpanExportResult.SUCCESS:
        held.spans.clear()
