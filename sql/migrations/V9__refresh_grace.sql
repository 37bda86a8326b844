-- Browser tabs that share a login refresh it at the same time. A refresh token that has just been replaced is therefore
-- accepted for a short time (REFRESH_GRACE); after it, the same token ends the session. This migration only adds columns
-- with defaults, so the program before it works with this schema: it replaces tokens without recording them here, and
-- they have no such time.

alter table sessions
    -- SHA-256 of the refresh tokens that were replaced most recently, newest first, and when. In the row of the session,
    -- so that two requests that wait for its lock see each other's token.
    add column spent_hashes bytea[]       not null default '{}',
    add column spent_at     timestamptz[] not null default '{}';

insert into schema_compatibility (migration, oldest_schema, program) values (9, 5, '0.1.0');
