"""The OpenAPI 3.1 document of the tenants' HTTP API."""

from __future__ import annotations

from typing import Any

from annexpy import __version__

__all__ = ["document"]

_TEXT = {"type": "string"}
_ACCESS = {"type": "string", "enum": ["read-only", "append-only", "write"], "default": "write"}
_QUOTA = {"type": ["integer", "null"], "minimum": 0, "description": "Bytes of content in each repository."}
_SECURE = {"type": "boolean", "description": "Only keys with a cryptographically secure hash: no MD5, no SHA1."}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {**_TEXT, "pattern": "^[a-z0-9][a-z0-9-]{0,39}$"}}
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
_JOB = {
    "name": "job",
    "in": "path",
    "required": True,
    "schema": {**_TEXT, "pattern": "^[a-z]{2}-[0-9]{8}-[0-9a-f]{6}$"},
}
_NAMES = {"type": "array", "items": _TEXT}
_LIMITS = {
    "type": "object",
    "description": "Such as bandwidth: 200MB/s, requests: 50/s, window: 20:00-06:00; none: no limit.",
}
_JOBS = "/tenants/{name}/jobs"

_MAKES = ("accept", "create", "invite", "rotate", "createJob")
"""Operations that are answered 201."""

# (method, path, operation, what it does, fields of the body, required fields)
_OPERATIONS: tuple[tuple[str, str, str, str, dict[str, Any], list[str]], ...] = (
    ("get", "/openapi.json", "describe", "This document.", {}, []),
    (
        "post",
        "/invitations/accept",
        "accept",
        "Turn an invitation into a credential. The secret is shown this once.",
        {"invitation": _TEXT, "label": _TEXT, "ssh-key": _TEXT},
        ["invitation"],
    ),
    ("get", "/tenants", "list", "Every tenant. For the operator.", {}, []),
    (
        "post",
        "/tenants",
        "create",
        "Make a tenant with its bare repositories. For the operator.",
        {
            "name": _TEXT,
            "access": _ACCESS,
            "quota": _QUOTA,
            "secure-hashes": _SECURE,
            "repositories": {"type": "array", "items": _TEXT},
        },
        ["name"],
    ),
    ("get", "/tenants/{name}", "show", "The tenant, and where its repositories are.", {}, []),
    (
        "delete",
        "/tenants/{name}",
        "delete",
        "Forget the tenant; its contents are kept aside. For the operator.",
        {},
        [],
    ),
    ("post", "/tenants/{name}/suspend", "suspend", "Let nobody of it in. For the operator.", {}, []),
    ("post", "/tenants/{name}/resume", "resume", "Let them in again. For the operator.", {}, []),
    ("post", "/tenants/{name}/quota", "limit", "Change the quota. For the operator.", {"quota": _QUOTA}, []),
    (
        "post",
        "/tenants/{name}/hashes",
        "hashes",
        "Change which keys may come. For the operator.",
        {"secure-hashes": _SECURE},
        ["secure-hashes"],
    ),
    ("post", "/tenants/{name}/invitations", "invite", "A new invitation, good for a week.", {"access": _ACCESS}, []),
    ("get", "/tenants/{name}/credentials", "credentials", "Those that are good, without secrets.", {}, []),
    ("post", "/tenants/{name}/credentials/{id}/rotate", "rotate", "A new secret in place of the old one.", {}, []),
    ("delete", "/tenants/{name}/credentials/{id}", "revoke", "Let its bearer in no more.", {}, []),
    ("get", "/tenants/{name}/audit", "audit", "What was done to the tenant, and by whom.", {}, []),
    ("get", _JOBS, "listJobs", "The jobs of the tenant.", {}, []),
    (
        "post",
        _JOBS,
        "createJob",
        "A new job between repositories of the tenant; it is written down before it is worked on.",
        {
            "type": {"type": "string", "enum": ["backfill", "verify", "repair", "drain"], "default": "backfill"},
            "to": {**_TEXT, "description": "Of every job but a drain."},
            "from": {**_NAMES, "description": "Of a drain the one repository that is emptied."},
            "verify": {"type": "string", "enum": ["stream", "peer", "reread"], "default": "reread"},
            "limits": _LIMITS,
            "callback": {"type": "string", "format": "uri"},
        },
        [],
    ),
    ("get", f"{_JOBS}/{{job}}", "showJob", "Its status, which never goes back, and its figures.", {}, []),
    ("get", f"{_JOBS}/{{job}}/events", "jobEvents", "What happened to it, in order.", {}, []),
    ("post", f"{_JOBS}/{{job}}/pause", "pauseJob", "Move nothing from the next chunk on.", {"reason": _TEXT}, []),
    ("post", f"{_JOBS}/{{job}}/resume", "resumeJob", "Go on.", {}, []),
    ("post", f"{_JOBS}/{{job}}/cancel", "cancelJob", "End it for good.", {"reason": _TEXT}, []),
    ("post", f"{_JOBS}/{{job}}/retry", "retryJob", "Plan anew what failed (of one kind).", {"kind": _TEXT}, []),
    (
        "post",
        f"{_JOBS}/{{job}}/limits",
        "limitJob",
        "Change limits from the next chunk on, of the job or at one repository.",
        {"limits": _LIMITS, "at": _TEXT},
        ["limits"],
    ),
)


def document() -> dict[str, Any]:  # Any: JSON
    """The document, ready for ``json.dumps``."""
    paths: dict[str, Any] = {}
    for method, path, operation, summary, fields, required in _OPERATIONS:
        described: dict[str, Any] = {
            "operationId": operation,
            "summary": summary,
            "responses": {
                "201" if method == "post" and operation in _MAKES else "200": {
                    "description": "Done.",
                    "content": {"application/json": {"schema": {"type": "object"}}},
                },
                "400": {"$ref": "#/components/responses/Refused"},
            },
        }
        if named := [one for one in (_NAME, _ID, _JOB) if f"{{{one['name']}}}" in path]:
            described["parameters"] = named
        if operation in ("describe", "accept"):
            described["security"] = []
        if fields:
            schema = {"type": "object", "properties": fields, "required": required}
            described["requestBody"] = {"required": bool(required), "content": {"application/json": {"schema": schema}}}
        paths.setdefault(path, {})[method] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "glimmer-store tenants", "version": __version__},
        "servers": [{"url": "/api/v1"}],
        "security": [{"basic": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "responses": {
                "Refused": {
                    "description": "It cannot be; nothing was changed.",
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "properties": {"error": _TEXT, "remedy": _TEXT},
                                "required": ["error"],
                            }
                        }
                    },
                }
            },
        },
    }
