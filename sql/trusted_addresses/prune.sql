-- Deletes addresses that are not trusted any more (TRUSTED_ADDRESS_TTL in src/limits/rate_limit.rs).
delete from trusted_addresses
 where last_login_at < now() - interval '30 days'
