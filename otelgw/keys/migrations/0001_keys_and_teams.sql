CREATE TABLE otelgw_team (
    id TEXT PRIMARY KEY,
    alias TEXT,
    document TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL
);
CREATE TABLE otelgw_key (
    hash TEXT PRIMARY KEY,
    alias TEXT,
    user_id TEXT,
    team_id TEXT,
    document TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL
);
CREATE UNIQUE INDEX otelgw_key_alias ON otelgw_key (alias);
CREATE INDEX otelgw_key_team ON otelgw_key (team_id);
CREATE INDEX otelgw_key_user ON otelgw_key (user_id);
