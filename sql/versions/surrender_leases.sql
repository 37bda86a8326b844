-- Takes note that the leases of tickets $1 to $2 of epoch $3 are used no more. Returns whether no other ticket is left to
-- wait for.
select surrender_leases($1, $2, $3)
