package router

import "strings"

// githubAPI is a part of a real API's shape: short literals, many parameters,
// literals beside parameters.
const githubAPI = `
GET /
GET /events
GET /feeds
GET /gists
POST /gists
GET /gists/public
GET /gists/starred
GET /gists/{gist_id}
PATCH /gists/{gist_id}
DELETE /gists/{gist_id}
GET /gists/{gist_id}/comments
GET /gists/{gist_id}/comments/{comment_id}
GET /gists/{gist_id}/{sha}
GET /issues
GET /legacy/issues/search/{owner}/{repository}/{state}/{keyword}
GET /networks/{owner}/{repo}/events
GET /notifications
PUT /notifications
GET /notifications/threads/{thread_id}
GET /notifications/threads/{thread_id}/subscription
GET /orgs/{org}
PATCH /orgs/{org}
GET /orgs/{org}/events
GET /orgs/{org}/members
GET /orgs/{org}/members/{username}
GET /orgs/{org}/repos
POST /orgs/{org}/repos
GET /orgs/{org}/teams/{team_slug}/members
GET /rate_limit
GET /repos/{owner}/{repo}
PATCH /repos/{owner}/{repo}
DELETE /repos/{owner}/{repo}
GET /repos/{owner}/{repo}/actions/runs/{run_id}/artifacts
GET /repos/{owner}/{repo}/branches
GET /repos/{owner}/{repo}/branches/{branch}
GET /repos/{owner}/{repo}/branches/{branch}/protection/required_status_checks/contexts
GET /repos/{owner}/{repo}/collaborators/{username}/permission
GET /repos/{owner}/{repo}/commits
GET /repos/{owner}/{repo}/commits/{ref}
GET /repos/{owner}/{repo}/compare/{basehead}
GET /repos/{owner}/{repo}/contents/{path...}
PUT /repos/{owner}/{repo}/contents/{path...}
GET /repos/{owner}/{repo}/git/blobs/{file_sha}
GET /repos/{owner}/{repo}/git/ref/{ref...}
GET /repos/{owner}/{repo}/issues
POST /repos/{owner}/{repo}/issues
GET /repos/{owner}/{repo}/issues/comments
GET /repos/{owner}/{repo}/issues/comments/{comment_id}
GET /repos/{owner}/{repo}/issues/{issue_number}
PATCH /repos/{owner}/{repo}/issues/{issue_number}
GET /repos/{owner}/{repo}/issues/{issue_number}/comments
POST /repos/{owner}/{repo}/issues/{issue_number}/labels
DELETE /repos/{owner}/{repo}/issues/{issue_number}/labels/{name}
GET /repos/{owner}/{repo}/pulls
GET /repos/{owner}/{repo}/pulls/{pull_number}
GET /repos/{owner}/{repo}/pulls/{pull_number}/files
PUT /repos/{owner}/{repo}/pulls/{pull_number}/merge
GET /repos/{owner}/{repo}/releases/latest
GET /repos/{owner}/{repo}/releases/tags/{tag}
GET /repos/{owner}/{repo}/releases/{release_id}
GET /repos/{owner}/{repo}/tarball/{ref}
GET /search/code
GET /search/issues
GET /search/repositories
GET /user
GET /user/emails
GET /user/followers
GET /user/repos
GET /users
GET /users/{username}
GET /users/{username}/events/orgs/{org}
GET /users/{username}/gists
GET /users/{username}/repos
`

func githubRoutes() []Route {
	var routes []Route
	for line := range strings.Lines(strings.TrimSpace(githubAPI)) {
		method, pattern, _ := strings.Cut(strings.TrimSpace(line), " ")
		routes = append(routes, Route{ID: len(routes), Pattern: pattern, Methods: []string{method}})
	}
	return routes
}

// githubHits is one request for each route.
func githubHits() []string {
	var lines []string
	for line := range strings.Lines(strings.TrimSpace(githubAPI)) {
		var path []string
		for segment := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			switch {
			case strings.HasSuffix(segment, "...}"):
				segment = "internal/router/match.go"
			case strings.HasPrefix(segment, "{"):
				segment = "octocat-" + strings.Trim(segment, "{}")
			}
			path = append(path, segment)
		}
		lines = append(lines, strings.Join(path, "/"))
	}
	return lines
}
