CREATE TABLE otelgw_spend (
    subject TEXT PRIMARY KEY,
    amount DOUBLE PRECISION NOT NULL,
    resets_at DOUBLE PRECISION NOT NULL
);
