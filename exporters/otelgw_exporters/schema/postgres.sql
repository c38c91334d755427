-- The table of the destination `postgres`, which makes it by itself if it is not there and the role may (create: true).
-- To make it yourself: psql -f postgres.sql. The role then needs INSERT and SELECT on it.

CREATE TABLE otelgw_calls (
    id                  text PRIMARY KEY,           -- <trace id>-<span id>: the same on every delivery
    call_id             text NOT NULL,              -- x-litellm-call-id
    trace_id            text NOT NULL,
    span_id             text NOT NULL,
    session_id          text,
    start_time          timestamptz NOT NULL,
    end_time            timestamptz NOT NULL,
    time_to_first_chunk double precision,           -- seconds
    status              text NOT NULL,              -- success, failure
    error_type          text,
    error_message       text,
    call_type           text NOT NULL,
    provider            text NOT NULL,
    model               text NOT NULL,              -- as the provider knows it
    model_group         text NOT NULL,              -- as the caller asked for it
    key_hash            text,
    key_alias           text,
    team_id             text,
    team_alias          text,
    end_user            text,
    tags                text[] NOT NULL,
    prompt_tokens       bigint NOT NULL,
    completion_tokens   bigint NOT NULL,
    total_tokens        bigint NOT NULL,
    cost                numeric,                    -- USD; null where it is not known
    payload             jsonb NOT NULL,             -- the whole standard payload
    stored_at           timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX ON otelgw_calls (start_time);
CREATE INDEX ON otelgw_calls (team_id, start_time) WHERE team_id IS NOT NULL;
CREATE INDEX ON otelgw_calls (call_id);
