-- Returns what a password change needs: the username, the stored password, the largest number of iterations of all
-- stored passwords, and whether the address is trusted.
-- $1 user id, $2 MACs of the client's address, $3 how long an address stays trusted, in seconds
select username, password_of(id) as password, max_password_iterations() as max_iterations,
       exists (
           select
             from unnest($2::bytea[]) mac
             join trusted_addresses t
               on t.user_id = u.id
              and t.digest = sha256(mac || int8send(u.id))
              and t.last_login_at > now() - make_interval(secs => $3)
       ) as is_trusted_address
  from users u
 where u.id = $1
