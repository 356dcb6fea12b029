//! Which identities a pod is entitled to.
