-- What was answered to a request that its client may repeat (the header Idempotency-Key): written in the transaction of the
-- request itself, so an answer is remembered if and only if what it speaks of was done.
create table idempotency_keys (
    user_id      bigint       not null references users (id) on delete cascade,
    key          varchar(255) not null,
    -- SHA-256 of the body, its fields in order
    request_hash bytea        not null,
    answer       text,
    created_at   timestamptz  not null default now(),
    primary key (user_id, key)
);
create index idempotency_keys_created_at_idx on idempotency_keys (created_at);
