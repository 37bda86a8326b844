-- When a login began: it can be renewed until it is as old as a session may become (SESSION_TTL). Those that there are begin anew.
alter table sessions add column started_at timestamptz not null default now();
