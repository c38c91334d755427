CREATE TABLE otelgw_schema (version INTEGER NOT NULL);
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
INSERT INTO otelgw_schema VALUES (1);
INSERT INTO otelgw_team VALUES ('t1', 'team one', '{"id":"t1","alias":"team one","models":[],"quota":{"rpm":9,"tpm":null,"budget":null,"period":""},"blocked":false,"metadata":{},"logging":[],"policy":{"content":null,"enabled":true,"destinations":null,"may_relax":false},"created_at":1.0,"updated_at":0.0}', 1.0);
INSERT INTO otelgw_key VALUES ('456f1612bd25c6c8455039437bf441f43aa3b7d1c0b0047c712d5036dfebef0d', 'one', 'u1', 't1', '{"hash":"456f1612bd25c6c8455039437bf441f43aa3b7d1c0b0047c712d5036dfebef0d","name":"sk-...-one","alias":"one","user_id":"u1","user_email":"u1@example.com","team_id":"t1","models":["gpt-*"],"quota":{"rpm":3,"tpm":100,"budget":1.5,"period":"30d"},"expires":2000000000.0,"blocked":false,"metadata":{"a":{"b":[1,null]}},"logging":[{"name":"otlp_http","event":"failure","variables":{},"sealed":"v1.xyz","confined":true}],"policy":{"content":false,"enabled":true,"destinations":["console"],"may_relax":false},"created_at":1.0,"updated_at":0.0}', 1.0);
