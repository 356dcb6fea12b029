//! The page of each reason. Each file has a block of codes.

use crate::{Page, Reason};

pub(crate) const fn of(_reason: Reason) -> Page {
    Page { what: "", why: "", mend: "" }
}
