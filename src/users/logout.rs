//! `POST /api/logout/`

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    app::App,
    auth::User,
    db::statements,
    error::{Error, Result},
    http::{Reply, Request, reply},
};

/// Instances' clocks may differ; a revocation outlives its tokens by this.
const MARGIN: Duration = Duration::from_secs(3600);

/// The token, and everything of the login it belongs to, is refused from now on by every instance.
pub async fn logout(app: &App, _: Request, user: User) -> Result<Reply> {
    let session = user.claims.sid.as_deref().and_then(|sid| sid.parse::<Uuid>().ok());
    let ids: Vec<&str> = [Some(user.claims.jti.as_str()), user.claims.sid.as_deref()].into_iter().flatten().collect();
    // the youngest token of this session may have been issued this very moment
    let youngest = SystemTime::now() + app.gate.tokens.lifetime();
    let own = SystemTime::UNIX_EPOCH + Duration::from_secs(user.claims.exp.unsigned_abs());
    let expires = Timestamp::try_from(youngest.max(own) + MARGIN).map_err(Error::internal)?;
    app.database.rows(&statements::REVOCATIONS_REVOKE, &[&ids, &expires, &session]).await?;
    Ok(reply::no_content())
}
