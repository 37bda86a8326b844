-- the versions of both subjects, in one row: what every instance reads before it believes its cache
select catalogue.version, catalogue.token, accounts.version, accounts.token
  from versions catalogue, versions accounts
 where catalogue.name = 'catalogue'
   and accounts.name = 'accounts'
