"""The OpenAPI 3.1 description, made from the list of questions and actions. Served at ``/openapi.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from obs_pipeline.dashboard.actions import Action
from obs_pipeline.dashboard.catalogue import QUESTIONS, Question


def openapi(version: str, actions: Mapping[str, Action] | None = None) -> dict[str, Any]:
    """The description of every question, and of the actions where there are some."""
    every: list[Question | Action] = [*QUESTIONS.values(), *(actions or {}).values()]
    asked = [(question.asked, "validation") for question in every]
    answered = [(question.answer, "serialization") for question in every]
    refs, definitions = models_json_schema(
        [*asked, *answered],  # type: ignore[list-item]
        ref_template="#/components/schemas/{model}",
    )
    paths = {
        f"/api/{question.name}": _path(
            question, refs[question.asked, "validation"], refs[question.answer, "serialization"]
        )
        for question in every
    }
    paths["/api/dashboard_export_data/file"] = _file_path(paths["/api/dashboard_export_data"]["post"])
    schemas = {
        **definitions["$defs"],
        "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "obs-pipeline", "version": version or "0"},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }


def _path(question: Question | Action, asked: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    also = " The same inputs may be sent as a query with GET." if question.name in QUESTIONS else ""
    return {
        "post": {
            "operationId": question.name,
            "summary": question.description,
            "description": f"Needs the role {question.role}.{also}",
            "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
            "responses": _responses("The answer.", {"application/json": {"schema": answer}}),
        }
    }


def _file_path(rows_in_pages: dict[str, Any]) -> dict[str, Any]:
    rows = {"text/csv": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}}
    return {
        "post": {
            **rows_in_pages,
            "operationId": "dashboard_export_file",
            "summary": "All rows behind the totals as one CSV or JSON file; limit and cursor do not apply.",
            "responses": _responses("The file.", rows),
        }
    }


def _responses(description: str, content: dict[str, Any]) -> dict[str, Any]:
    error = {
        "description": "It says what is wrong.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    return {
        "200": {"description": description, "content": content},
        **dict.fromkeys(("401", "403", "422", "429", "503"), error),
    }
